//! How a command ends: the exit status, and errors that say what to do.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;

/// How a command that ran to its end answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done: exit status 0.
    Done,
    /// The answer is no: a check failed, a command was rejected. Exit status 1.
    No,
}

/// Wrong usage, or settings that cannot be used: exit status 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit status of an outcome; an error is written to standard error.
pub(crate) fn code(outcome: &anyhow::Result<Answer>) -> ExitCode {
    let error = match outcome {
        Ok(Answer::Done) => return ExitCode::SUCCESS,
        Ok(Answer::No) => return ExitCode::from(1),
        Err(error) => error,
    };
    eprintln!("error: {}", words(error));
    let usage = error
        .chain()
        .any(|cause| cause.is::<Usage>() || cause.is::<ConfigError>());
    ExitCode::from(if usage { 2 } else { 3 })
}

/// An error with its causes, each said once: some say in their own words what their cause says too.
fn words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        if text.is_empty() {
            text = said;
        } else if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = anyhow!("refused")
            .context("cannot connect: refused")
            .context("the log");
        assert_eq!(words(&error), "the log: cannot connect: refused");
    }
}
