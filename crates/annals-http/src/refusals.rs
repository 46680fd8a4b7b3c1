//! What a node spends on saying that there is too much to do.
//!
//! A refusal costs about a third of a command. Clients that send again at once, over and over, could have a node do nothing
//! else; so every command that was answered pays for some refusals, and one that nothing pays for waits for its turn, at most
//! as long as `Retry-After` asks for. Up to about twice of what it can do a node refuses at once; a flood is slowed down to
//! the speed at which the node does its work, and holds no more than its connections.

use std::time::Duration;

use tokio::sync::Semaphore;

/// How many refusals a command pays for.
const EACH: usize = 4;
/// How many are paid for in advance at most.
const SAVED: usize = 1_000;
/// The longest wait. Not longer than `Retry-After`: whoever heeds that is not delayed twice.
const LONGEST: Duration = Duration::from_secs(1);

/// Refusals that are paid for.
#[derive(Debug)]
pub(crate) struct Refusals(Semaphore);

impl Default for Refusals {
    fn default() -> Self {
        Self(Semaphore::new(SAVED))
    }
}

impl Refusals {
    /// A command was answered.
    pub(crate) fn pay(&self) {
        if self.0.available_permits() < SAVED {
            self.0.add_permits(EACH);
        }
    }

    /// Waits until a refusal may be said, in the order of those who wait.
    pub(crate) async fn turn(&self) {
        let turn = match self.0.try_acquire() {
            Ok(turn) => Some(turn),
            Err(_) => match tokio::time::timeout(LONGEST, self.0.acquire()).await {
                Ok(turn) => turn.ok(),
                Err(_) => None,
            },
        };
        if let Some(turn) = turn {
            turn.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::future::poll_immediate;
    use tokio::time::Instant;

    use super::*;

    type Turn<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
    type Turns<'a> = Vec<Turn<'a>>;

    fn waiting(refusals: &Refusals, count: usize) -> Turns<'_> {
        let turn = |_| -> Turn<'_> { Box::pin(refusals.turn()) };
        (0..count).map(turn).collect()
    }

    /// How many of them have their turn now; they are taken out.
    async fn ready(turns: &mut Turns<'_>) -> usize {
        let before = turns.len();
        let mut left = Vec::new();
        for mut turn in turns.drain(..) {
            if poll_immediate(&mut turn).await.is_none() {
                left.push(turn);
            }
        }
        *turns = left;
        before - turns.len()
    }

    #[tokio::test]
    async fn some_are_said_at_once_and_then_each_waits_for_work_that_was_done_or_for_a_second() {
        let refusals = Refusals::default();
        let mut turns = waiting(&refusals, SAVED + 10);
        assert_eq!(ready(&mut turns).await, SAVED);
        refusals.pay();
        assert_eq!(ready(&mut turns).await, EACH);
        assert_eq!(ready(&mut turns).await, 0);
        refusals.pay();
        assert_eq!(ready(&mut turns).await, EACH);
        let began = Instant::now();
        for turn in turns {
            turn.await;
        }
        // They began to wait a little earlier.
        assert!(began.elapsed() > LONGEST / 2);
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_paid_for_in_advance() {
        let refusals = Refusals::default();
        (0..10_000).for_each(|_| refusals.pay());
        let mut turns = waiting(&refusals, SAVED + 10);
        assert_eq!(ready(&mut turns).await, SAVED);
    }
}
