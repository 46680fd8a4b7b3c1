//! A gateway that keeps books: what it holds, has taken and given back, and what it answered to which key.

use std::collections::BTreeMap;

use crate::gateway::{Authorize, Notice, Verdict};
use crate::limits::{OrderId, Reason, Reference};

/// One payment in the gateway's books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) holds: bool,
    pub(super) voided: bool,
    pub(super) captured: i64,
    pub(super) refunded: i64,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    accounts: BTreeMap<OrderId, Account>,
    verdicts: BTreeMap<u64, Verdict>,
    told: BTreeMap<u64, ()>,
}

impl Books {
    pub(super) fn account(&self, payment: OrderId) -> Account {
        self.accounts.get(&payment).copied().unwrap_or_default()
    }

    /// A key that is known gets the answer that it got.
    pub(super) fn authorize(&mut self, ask: &Authorize, key: u64) -> Verdict {
        let account = self.accounts.entry(ask.payment).or_default();
        let verdict = self.verdicts.entry(key).or_insert_with(|| {
            if ask.method.as_str() == "tok_declined" || account.voided {
                return Verdict::Declined {
                    reason: Reason::new("no funds").unwrap(),
                };
            }
            account.holds = true;
            Verdict::Authorized {
                reference: Reference::new("A-1").unwrap(),
            }
        });
        verdict.clone()
    }

    /// `false` if it has to be told again later.
    pub(super) fn tell(&mut self, notice: &Notice, key: u64) -> bool {
        if self.told.contains_key(&key) {
            return true;
        }
        match notice {
            Notice::Capture { payment, amount } => {
                let account = self.accounts.entry(*payment).or_default();
                assert!(account.holds && !account.voided, "captured what is not held");
                account.holds = false;
                account.captured += amount.amount.get();
            }
            Notice::Void { payment } => {
                let account = self.accounts.entry(*payment).or_default();
                assert_eq!(account.captured, 0, "voided what was captured");
                account.holds = false;
                account.voided = true;
            }
            Notice::Refund { payment, amount } => {
                let account = self.accounts.entry(*payment).or_default();
                if account.captured < account.refunded + amount.amount.get() {
                    return false;
                }
                account.refunded += amount.amount.get();
            }
        }
        self.told.insert(key, ());
        true
    }
}
