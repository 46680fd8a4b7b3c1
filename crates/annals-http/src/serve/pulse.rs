//! Whether a connection is still used: requests are counted, and now and then somebody looks at the count.
//!
//! One timer a connection in place of one a request: nothing is armed, moved or cancelled when a request comes or goes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::body::Outbound;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// How many began.
    begun: AtomicU64,
    /// How many of them are open, up to the end of their responses' bodies.
    open: AtomicU64,
}

impl Pulse {
    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Open {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        // HTTP/2 asks the other side itself whether it is there (its pings), and may be idle as long as it is.
        let ends = version < Version::HTTP_2;
        Open(ends.then(|| Arc::clone(self)))
    }

    /// Comes to an end once no request has begun within `first`, and later once none has begun or was open for `factor`
    /// times that long, at most `first` too late.
    pub(super) async fn silence(&self, first: Duration, factor: u32) {
        let began = Instant::now();
        let mut looks = tokio::time::interval_at(began + first, first);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looker = Looker::default();
        loop {
            looks.tick().await;
            let begun = self.begun.load(Ordering::Relaxed);
            let quiet = looker.look(begun, self.open.load(Ordering::Relaxed));
            if begun == 0 || quiet >= factor {
                return;
            }
        }
    }
}

/// What was seen at the last look.
#[derive(Debug, Default)]
struct Looker {
    begun: u64,
    open: u64,
    quiet: u32,
}

impl Looker {
    /// For how many whole periods between looks nothing has begun or was open.
    fn look(&mut self, begun: u64, open: u64) -> u32 {
        let was_used = begun != self.begun || self.open > 0 || open > 0;
        self.quiet = if was_used { 0 } else { self.quiet + 1 };
        (self.begun, self.open) = (begun, open);
        self.quiet
    }
}

/// A request that is open.
#[derive(Debug)]
pub(super) struct Open(Option<Arc<Pulse>>);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(pulse) = &self.0 {
            pulse.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Open {
    /// Open until this body has ended or is not wanted any more.
    pub(super) fn until_end_of(self, body: Outbound) -> Tracked {
        Tracked { body, _open: self }
    }
}

/// A response's body that keeps its request open.
pub(super) struct Tracked {
    body: Outbound,
    _open: Open,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = <Outbound as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Either;

    use super::*;

    /// What looks say of a pulse that stands so at each: how many have begun, how many are open.
    fn looks(stands: &[(u64, u64)]) -> Vec<u32> {
        let mut looker = Looker::default();
        stands
            .iter()
            .map(|(begun, open)| looker.look(*begun, *open))
            .collect()
    }

    #[test]
    fn only_whole_periods_without_a_request_are_quiet() {
        assert_eq!(looks(&[(0, 0), (0, 0)]), [1, 2]);
        assert_eq!(looks(&[(1, 0), (1, 0), (1, 0), (2, 0), (2, 0)]), [0, 1, 2, 0, 1]);
        // Open at a look: it ended somewhere in the period that follows.
        assert_eq!(looks(&[(1, 1), (1, 1), (1, 0), (1, 0)]), [0, 0, 0, 1]);
    }

    #[test]
    fn a_request_is_open_until_its_answer_has_ended() {
        let pulse = Arc::new(Pulse::default());
        let open = |pulse: &Pulse| pulse.open.load(Ordering::Relaxed);
        let body = pulse
            .begin(Version::HTTP_11)
            .until_end_of(Either::Right(axum::body::Body::empty()));
        drop(pulse.begin(Version::HTTP_10));
        assert_eq!((pulse.begun.load(Ordering::Relaxed), open(&pulse)), (2, 1));
        drop(body);
        assert_eq!(open(&pulse), 0);
        drop(pulse.begin(Version::HTTP_2));
        assert_eq!(open(&pulse), 1, "its pings say when it is gone");
    }
}
