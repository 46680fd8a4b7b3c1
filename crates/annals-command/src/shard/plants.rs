//! What planted mistakes do where it takes more than a condition. Never reached without the feature `planted`.

use annals_domain::catalog::Decision;
use annals_domain::{Refusal, VERSION_MISMATCH};
use annals_record::planted::{Plant, planted};
use annals_record::{RecordId, Version};

use super::{Lease, ShardEngine, Shared, Waiting, reply};
use crate::answer::{Answer, Outcome, SendError};

impl ShardEngine {
    /// The answer to a decision that gets no record; none where nothing is planted.
    pub(super) fn unlogged(
        &self,
        command: &Waiting,
        record: RecordId,
        version: Version,
        decision: &Decision,
    ) -> Option<Answer> {
        let outcome = match decision {
            Ok(events) if planted(Plant::NothingUnlogged) && events.is_empty() => Outcome::Committed(vec![]),
            Err(Refusal { code, .. }) if planted(Plant::MismatchUnlogged) && code == VERSION_MISMATCH => {
                Outcome::VersionMismatch { current: version }
            }
            Err(Refusal { code, detail }) if planted(Plant::RefusalUnlogged) && code != VERSION_MISMATCH => {
                Outcome::Rejected {
                    code: code.clone(),
                    detail: detail.clone(),
                }
            }
            Ok(_) | Err(_) => return None,
        };
        Some(Answer {
            record,
            stream: command.request.stream.clone(),
            position: self.position(self.head()?.next),
            version,
            outcome,
            replayed: false,
        })
    }

    /// Says of pending commands that another may decide them, though nobody knows what became of them.
    pub(super) fn hand_on_pending(&mut self, cx: &mut Shared<'_>) {
        let error = match &self.lease {
            Lease::Theirs(url) => SendError::NotOwner { url: url.clone() },
            Lease::Ours | Lease::Unknown => SendError::ShardUnavailable,
        };
        let mut open: Vec<_> = self.pending.drain().collect();
        open.sort_by_key(|(id, _)| *id);
        for (_, pending) in open {
            reply(cx, pending.command.token, Err(error.clone()));
        }
    }
}
