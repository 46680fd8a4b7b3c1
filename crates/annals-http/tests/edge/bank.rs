//! A small bank: accounts, which the server can make keys for, and coins, which it cannot.

use annals_domain::{self as annals, Aggregate, Bounded, Catalog, Context, Owner, Personal, Text, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

annals::uuid_key!(
    /// The number of an account.
    pub struct AccountId;
);
annals::text_key!(
    /// What is stamped on a coin.
    pub struct Stamp(max = 16);
);

#[derive(Debug, Clone, annals::Command)]
pub(crate) enum AccountCommand {
    /// Opens an account.
    Open(Open),
    /// Puts money in.
    Deposit(Deposit),
    Close,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Open {
    pub(crate) owner: Text<50>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<Personal<Text<20>>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deposit {
    pub(crate) amount: Bounded<1, 1_000>,
    #[serde(default)]
    pub(crate) notes: Vec<Note>,
}

/// A nested type, for its place in the description.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    pub(crate) text: Text<10>,
}

#[derive(Debug, Clone, annals::Event)]
#[event(category = "account")]
pub(crate) enum AccountEvent {
    Opened(Opened),
    Deposited(Deposited),
    Closed,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Opened {
    pub(crate) owner: Text<50>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Deposited {
    pub(crate) amount: i64,
}

#[derive(Debug, Clone, annals::Rejection)]
pub(crate) enum AccountRejection {
    AlreadyOpen,
    Overdrawn { balance: i64 },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Account {
    owner: Option<String>,
    balance: i64,
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    const RESOURCE: &'static str = "accounts";
    const REVISION: u32 = 1;
    const KEYLESS: &'static [&'static str] = &["open"];
    type Key = AccountId;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(
        &self,
        command: &AccountCommand,
        _: &Context<'_, Self>,
    ) -> Result<Vec<AccountEvent>, AccountRejection> {
        match command {
            AccountCommand::Open(_) if self.owner.is_some() => Err(AccountRejection::AlreadyOpen),
            AccountCommand::Open(open) => Ok(vec![AccountEvent::Opened(Opened {
                owner: open.owner.clone(),
            })]),
            AccountCommand::Deposit(deposit) => Ok(vec![AccountEvent::Deposited(Deposited {
                amount: deposit.amount.get(),
            })]),
            AccountCommand::Close if self.balance != 0 => Err(AccountRejection::Overdrawn {
                balance: self.balance,
            }),
            AccountCommand::Close => Ok(vec![AccountEvent::Closed]),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened(opened) => self.owner = Some(opened.owner.as_str().to_owned()),
            AccountEvent::Deposited(deposited) => self.balance += deposited.amount,
            AccountEvent::Closed => self.owner = None,
        }
    }

    fn owner(&self, _: &AccountId, command: &AccountCommand) -> Option<Owner> {
        match command {
            AccountCommand::Open(open) => Some(Owner::new(open.owner.as_str())),
            AccountCommand::Deposit(_) | AccountCommand::Close => self.owner.clone().map(Owner::new),
        }
    }

    fn check(command: &AccountCommand) -> Vec<Violation> {
        match command {
            AccountCommand::Deposit(deposit) if deposit.amount.get() == 13 => {
                vec![Violation::at("/amount", "thirteen brings bad luck")]
            }
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, annals::Command)]
pub(crate) enum CoinCommand {
    Mint,
}

#[derive(Debug, Clone, annals::Event)]
#[event(category = "coin")]
pub(crate) enum CoinEvent {
    Minted,
}

#[derive(Debug, Clone, annals::Rejection)]
pub(crate) enum CoinRejection {
    Fake,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Coin {
    minted: bool,
}

impl Aggregate for Coin {
    const CATEGORY: &'static str = "coin";
    const RESOURCE: &'static str = "coins";
    const REVISION: u32 = 1;
    type Key = Stamp;
    type Command = CoinCommand;
    type Event = CoinEvent;
    type Rejection = CoinRejection;

    fn decide(&self, _: &CoinCommand, _: &Context<'_, Self>) -> Result<Vec<CoinEvent>, CoinRejection> {
        if self.minted {
            Err(CoinRejection::Fake)
        } else {
            Ok(vec![CoinEvent::Minted])
        }
    }
    fn evolve(&mut self, event: &CoinEvent) {
        match event {
            CoinEvent::Minted => self.minted = true,
        }
    }
    fn owner(&self, _: &Stamp, _: &CoinCommand) -> Option<Owner> {
        None
    }
}

pub(crate) fn catalog() -> Catalog {
    Catalog::builder("bank".parse().unwrap())
        .aggregate::<Account>()
        .aggregate::<Coin>()
        .build()
        .unwrap()
}
