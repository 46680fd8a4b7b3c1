//! What processes count; no label holds an instance.

use metrics::{counter, gauge};

pub(crate) fn reacted(process: &'static str, inputs: usize) {
    counter!("annals_process_inputs_total", "process" => process).increment(number(inputs));
}

pub(crate) fn sent(process: &'static str) {
    counter!("annals_process_commands_total", "process" => process).increment(1);
}

pub(crate) fn sent_again(process: &'static str, commands: usize) {
    counter!("annals_process_commands_again_total", "process" => process).increment(number(commands));
}

pub(crate) fn parked(process: &'static str) {
    counter!("annals_process_parked_total", "process" => process).increment(1);
}

pub(crate) fn performed(process: &'static str, ok: bool) {
    let outcome = if ok { "ok" } else { "failed" };
    counter!("annals_process_effects_total", "process" => process, "outcome" => outcome).increment(1);
}

pub(crate) fn timers(process: &'static str, fired: usize) {
    counter!("annals_process_timers_total", "process" => process).increment(number(fired));
}

pub(crate) fn halted(process: &'static str) {
    counter!("annals_process_reader_halted_total", "process" => process).increment(1);
}

pub(crate) fn running(process: &'static str, running: bool) {
    gauge!("annals_process_running", "process" => process).set(if running { 1.0 } else { 0.0 });
}

pub(crate) fn breaker_opened() {
    counter!("annals_effect_breakers_opened_total").increment(1);
}

fn number(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
