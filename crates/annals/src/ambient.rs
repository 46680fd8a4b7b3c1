//! The real source of time and randomness.

use std::cell::RefCell;
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
        match bytes.len() {
            ..=ID_BYTES => READY.with_borrow_mut(|ready| ready.give(bytes, |all| self.generate(all))),
            _ => self.generate(bytes),
        }
    }
}

impl System {
    fn generate(&self, bytes: &mut [u8]) {
        self.0
            .fill(bytes)
            .expect("the system's generator of random bytes does not fail once it is seeded");
    }
}

/// As many bytes as an id has. What asks for more (keys, salts) gets bytes that were never kept.
const ID_BYTES: usize = 16;
/// How many bytes are generated at once for ids: a call of the generator costs as much for one id as for a dozen.
const READY_BYTES: usize = 256;

thread_local! {
    static READY: RefCell<Ready> = const { RefCell::new(Ready::new()) };
}

/// Random bytes that wait for ids. Those that were given are gone from here.
struct Ready {
    bytes: [u8; READY_BYTES],
    left: usize,
}

impl Ready {
    const fn new() -> Self {
        Self {
            bytes: [0; READY_BYTES],
            left: 0,
        }
    }

    fn give(&mut self, into: &mut [u8], generate: impl FnOnce(&mut [u8])) {
        if self.left < into.len() {
            generate(&mut self.bytes);
            self.left = READY_BYTES;
        }
        let given = &mut self.bytes[self.left - into.len()..self.left];
        into.copy_from_slice(given);
        given.fill(0);
        self.left -= into.len();
    }
}

/// Time and randomness of this machine.
#[must_use]
pub(crate) fn system() -> Ambient {
    Ambient::new(System(SystemRandom::new()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn no_random_byte_is_given_twice() {
        let mut ready = Ready::new();
        let mut next = 0_u8;
        let generated = Cell::new(0);
        // Counts up instead: what is given twice shows.
        let mut generate = |bytes: &mut [u8]| {
            generated.set(generated.get() + 1);
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(1);
            }
        };
        let mut seen = Vec::new();
        for length in [16, 10, 16, 1, 16, 12, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16] {
            let mut bytes = vec![0; length];
            ready.give(&mut bytes, &mut generate);
            seen.extend(bytes);
        }
        let before: std::collections::BTreeSet<u8> = seen.iter().copied().collect();
        assert_eq!(generated.get(), 1, "{} bytes were asked for", seen.len());
        assert_eq!(before.len(), seen.len());
        assert!(ready.bytes[ready.left..].iter().all(|byte| *byte == 0));
        ready.give(&mut [0; 16], &mut generate);
        assert_eq!(generated.get(), 2, "the rest is too short for an id");
    }

    #[test]
    fn ids_and_keys_differ_each_time() {
        let ambient = system();
        let ids: std::collections::HashSet<[u8; 16]> = (0..1_000).map(|_| ambient.random()).collect();
        assert_eq!(ids.len(), 1_000);
        assert_ne!(ambient.random::<32>(), ambient.random::<32>());
    }
}
