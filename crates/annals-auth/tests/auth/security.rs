//! Security events as a subscriber sees them.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use annals_auth::security::{LINES_PER_WINDOW, TARGET, WINDOW_MS};
use annals_auth::{SecurityEvent, SecurityLog, TokenError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::forge::clock;

/// Keeps every event as one line of `name=value`.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn recorded(events: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), events);
    lines.0.lock().unwrap().clone()
}

#[test]
fn every_event_says_what_happened_and_to_whom() {
    let log = SecurityLog::new(clock().0);
    let events = [
        SecurityEvent::Unauthenticated { why: None },
        SecurityEvent::Unauthenticated {
            why: Some(TokenError::Signature),
        },
        SecurityEvent::ForbiddenRole {
            sub: "ada",
            what: "orders/ship",
        },
        SecurityEvent::ForbiddenObject {
            sub: "ada",
            what: "orders/cancel",
            stream: "order-1",
        },
        SecurityEvent::NodeTokenRefused {
            why: Some(TokenError::Expired),
        },
        SecurityEvent::OperatorAction {
            sub: "olga",
            action: "projections/orders/rebuild",
        },
        SecurityEvent::PrivacyRead {
            sub: "pat",
            what: "customers",
            values: 3,
        },
        SecurityEvent::KeyDestroyed {
            subject: "customer-1",
        },
    ];
    let lines = recorded(|| events.iter().for_each(|event| log.record(event)));
    assert_eq!(lines.len(), events.len());
    for (line, event) in lines.iter().zip(&events) {
        assert!(line.starts_with(TARGET) && line.contains(event.kind()), "{line}");
    }
    let all = lines.join("\n");
    for said in [
        "\"none\"",
        "\"signature\"",
        "\"orders/ship\"",
        "\"order-1\"",
        "\"expired\"",
        "\"olga\"",
        "values=3",
    ] {
        assert!(all.contains(said), "{said} is not in\n{all}");
    }
}

#[test]
fn strangers_cannot_fill_the_log_and_trusted_roles_are_always_written() {
    let (ambient, time) = clock();
    let log = SecurityLog::new(ambient);
    let stranger = SecurityEvent::Unauthenticated { why: None };
    let privacy = SecurityEvent::PrivacyRead {
        sub: "pat",
        what: "customers",
        values: 1,
    };
    let lines = recorded(|| {
        for _ in 0..1_000 {
            log.record(&stranger);
            log.record(&privacy);
        }
    });
    let of = |kind: &str| lines.iter().filter(|line| line.contains(kind)).count();
    assert_eq!(of("unauthenticated"), usize::try_from(LINES_PER_WINDOW).unwrap());
    assert_eq!(of("privacy_read"), 1_000);
    time.advance_ms(WINDOW_MS);
    let lines = recorded(|| log.record(&stranger));
    assert!(lines[0].contains("suppressed=900"), "{lines:?}");
    assert_eq!(lines.len(), 2);
}
