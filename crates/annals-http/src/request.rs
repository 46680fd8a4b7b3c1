//! The request that a thread works on just now, so that whatever is logged meanwhile can say so.
//!
//! In place of a span of `tracing`: that is made, formatted and dropped for every request, also for the many in which
//! nothing is logged. What is kept here costs two pointers a poll, and is written only into lines that there are: whoever
//! formats log lines asks [`current`].

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use http::Method;

thread_local! {
    static CURRENT: RefCell<Option<Request>> = const { RefCell::new(None) };
}

/// A request, as log lines name it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The route's template; it holds no ids.
    pub route: &'static str,
    /// The correlation id, the client's or one that the server made.
    pub correlation: Arc<str>,
}

/// The request that this thread works on just now; `None` between requests and on behalf of nobody.
#[must_use]
pub fn current() -> Option<Request> {
    CURRENT.with_borrow(Clone::clone)
}

impl Request {
    /// Runs `work` as part of this request.
    pub(crate) fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(self.clone()));
        let _restored = Restored(before);
        work()
    }

    /// A future whose every poll is part of this request.
    pub(crate) async fn around<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| self.scope(|| future.as_mut().poll(cx))).await
    }
}

/// Puts back what was there before, also if the work panics.
struct Restored(Option<Request>);

impl Drop for Restored {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(correlation: &str) -> Request {
        Request {
            method: Method::POST,
            route: "/v1/batch",
            correlation: correlation.into(),
        }
    }

    #[tokio::test]
    async fn a_request_is_current_while_it_is_polled_and_not_in_between() {
        let (one, other) = (request("one"), request("other"));
        let turns = async |expected: &Request| {
            for _ in 0..3 {
                assert_eq!(current().as_ref(), Some(expected));
                tokio::task::yield_now().await;
            }
        };
        futures_util::future::join(one.around(turns(&one)), other.around(turns(&other))).await;
        assert_eq!(current(), None);
    }

    #[test]
    fn a_panic_leaves_no_request_behind() {
        let outer = request("outer");
        outer.scope(|| {
            let inner = request("inner");
            let panicking = || inner.scope(|| std::panic::resume_unwind(Box::new(())));
            let ended: Result<(), _> = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking));
            assert!(ended.is_err());
            assert_eq!(current(), Some(outer.clone()));
        });
        assert_eq!(current(), None);
    }
}
