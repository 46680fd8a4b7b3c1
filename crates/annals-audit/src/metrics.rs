//! What the auditors' side counts.

use metrics::counter;

pub(crate) fn indexed(records: usize) {
    counter!("annals_audit_records_indexed_total").increment(u64::try_from(records).unwrap_or(0));
}

pub(crate) fn halted() {
    counter!("annals_audit_reader_halted_total").increment(1);
}
