//! The real source of time and randomness.

use std::time::{SystemTime, UNIX_EPOCH};

use annals_domain::{Ambient, AmbientSource};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// The system's clock and generator.
struct System(SystemRandom);

impl AmbientSource for System {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.0
            .fill(bytes)
            .expect("the system's generator of random bytes does not fail once it is seeded");
    }
}

/// Time and randomness of this machine.
#[must_use]
pub(crate) fn system() -> Ambient {
    Ambient::new(System(SystemRandom::new()))
}
