//! Whether this node offers to take commands, and whether others have taken over what it had.

use tokio::sync::watch;

/// Shared by whoever starts and ends the node, by the task that keeps the node's row, and by [`crate::Ownership`].
/// Cheap to clone.
///
/// A node's row names the role `command` while it [`Standing::offers`] to take commands; others balance over those rows.
/// So who withdraws loses its shares to them, one hand-over like any other, before it ends.
#[derive(Debug, Clone)]
pub struct Standing {
    offer: watch::Sender<Offer>,
    held: watch::Sender<Held>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offer {
    serving: bool,
    clock_ok: bool,
}

/// What the last look at the leases showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Whether others see that this node does not offer itself.
    pub(crate) withdrawn: bool,
    /// Whether there are others.
    pub(crate) others: bool,
    /// How many shards nobody else has.
    pub(crate) left: usize,
}

impl Standing {
    /// Of a node that serves already, or will only once [`Standing::serve`] says so.
    #[must_use]
    pub fn new(serving: bool) -> Self {
        let offer = Offer {
            serving,
            clock_ok: true,
        };
        Self {
            offer: watch::Sender::new(offer),
            held: watch::Sender::default(),
        }
    }

    /// From now on it takes commands.
    pub fn serve(&self) {
        self.change(|offer| offer.serving = true);
    }

    /// From now on it takes no new shards, and gives away those that it has.
    pub fn withdraw(&self) {
        self.change(|offer| offer.serving = false);
    }

    /// A node whose clock is off neither claims nor decides: another should.
    pub(crate) fn clock(&self, ok: bool) {
        self.change(|offer| offer.clock_ok = ok);
    }

    /// Whether it offers to take commands.
    #[must_use]
    pub fn offers(&self) -> bool {
        let offer = *self.offer.borrow();
        offer.serving && offer.clock_ok
    }

    /// Tells of changes of [`Standing::offers`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<impl Send + Sync + 'static> {
        self.offer.subscribe()
    }

    /// Waits until others have every shard, or there are no others. Returns whether there are.
    ///
    /// Only after [`Standing::withdraw`]; pends while leases cannot be read.
    pub async fn handed_over(&self) -> bool {
        let mut held = self.held.subscribe();
        let done = held.wait_for(|held| held.withdrawn && (held.left == 0 || !held.others));
        done.await.is_ok_and(|held| held.others)
    }

    pub(crate) fn saw(&self, held: Held) {
        self.held.send_replace(held);
    }

    fn change(&self, change: impl FnOnce(&mut Offer)) {
        self.offer.send_if_modified(|offer| {
            let before = *offer;
            change(offer);
            *offer != before
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_node_offers_itself_while_it_serves_and_its_clock_is_right() {
        let standing = Standing::new(false);
        assert!(!standing.offers());
        standing.serve();
        assert!(standing.offers());
        let mut changes = standing.changes();
        standing.clock(true);
        assert!(
            !changes.has_changed().expect("the sender lives"),
            "nothing changed"
        );
        standing.clock(false);
        assert!(!standing.offers());
        assert!(changes.changed().now_or_never().is_some());
        standing.clock(true);
        assert!(standing.offers());
        standing.withdraw();
        assert!(!standing.offers());
    }

    #[test]
    fn the_hand_over_is_done_when_others_have_all_or_there_are_none() {
        let standing = Standing::new(true);
        let seen = |withdrawn, others, left| {
            standing.saw(Held {
                withdrawn,
                others,
                left,
            });
            standing.handed_over().now_or_never()
        };
        assert_eq!(
            seen(false, true, 0),
            None,
            "others may still think that it takes part"
        );
        assert_eq!(seen(true, true, 3), None);
        assert_eq!(seen(true, true, 0), Some(true));
        assert_eq!(seen(true, false, 16), Some(false));
    }
}
