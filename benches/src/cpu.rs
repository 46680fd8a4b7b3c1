//! CPU seconds of processes, from `/proc`; zero where there is none.
//!
//! Source: proc(5); times are in ticks of 10 ms.

use std::path::Path;

/// CPU seconds of this process so far, all threads.
#[must_use]
pub fn own() -> f64 {
    of(Path::new("/proc/self/stat"))
}

/// CPU seconds of a process so far, all threads.
#[must_use]
pub fn process(pid: u32) -> f64 {
    of(Path::new(&format!("/proc/{pid}/stat")))
}

/// CPU seconds of all processes of this name, those that have ended not counted.
#[must_use]
pub fn named(name: &str) -> f64 {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0.0;
    };
    let of_name = processes.flatten().filter(|process| {
        std::fs::read_to_string(process.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    of_name.map(|process| of(&process.path().join("stat"))).sum()
}

/// Bytes of this process that are in memory.
#[must_use]
pub fn resident() -> f64 {
    resident_in(Path::new("/proc/self/status"))
}

/// The same of another process.
#[must_use]
pub fn resident_of(pid: u32) -> f64 {
    resident_in(Path::new(&format!("/proc/{pid}/status")))
}

fn resident_in(status: &Path) -> f64 {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() * 1_024.0
}

/// The load averages of the last minutes, as the system prints them.
#[must_use]
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn of(stat: &Path) -> f64 {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    let Some((_, fields)) = text.rsplit_once(')') else {
        return 0.0;
    };
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}
