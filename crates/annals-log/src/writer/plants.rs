//! What planted mistakes do where it takes more than a condition. Never reached without the feature `planted`.

use std::sync::Arc;

use annals_record::hash;

use super::{Output, ShardWriter};
use crate::Appended;

impl ShardWriter {
    /// Takes landed for accepted.
    pub(super) fn acknowledge(&self, result: &Appended, out: &mut Vec<Output>) {
        let Appended::Landed(places) = result else { return };
        for (id, offset) in places {
            let own = self.pending.iter().find(|pending| pending.record.id() == *id);
            out.extend(own.map(|pending| Output::Accepted {
                record: Arc::clone(&pending.record),
                offset: *offset,
            }));
        }
    }

    /// Takes unknown for never.
    pub(super) fn retry_blindly(&mut self, out: &mut Vec<Output>) {
        self.settle_all(out);
        self.next = *self.fold.head();
    }

    /// Takes a claim that has landed for the next record.
    pub(super) fn own_at_once(&mut self, out: &mut Vec<Output>) {
        let Some(record) = self.claim_record() else { return };
        let hash = hash::record_hash(&record);
        self.last_hash = hash;
        self.fold.step_record(&record, hash);
        self.claim_accepted(record.id(), Arc::new(record), out);
    }
}
