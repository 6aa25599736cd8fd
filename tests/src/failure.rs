//! Why the demo or a benchmark did not get to its end.

use std::io;

use testkit::{Error, eventually::NotYet};

use crate::program::Interrupted;

/// More of a log would hide what went wrong.
const LOG_LINES: usize = 15;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It was asked to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The terminal is gone, or the system refused something.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Building, starting or installing something failed.
    #[error("{0}")]
    Kit(#[from] Error),
    /// The API server refused something.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// Something did not happen.
    #[error("{0}")]
    NotYet(#[from] NotYet),
    /// Something is not as it has to be; the text says what.
    #[error("{0}")]
    Unmet(String),
    /// The operator ended by itself.
    #[error("the operator has ended by itself")]
    Ended,
    /// Something failed while the operator ran.
    #[error("{source}\n\nThe end of the operator's log:\n{log}")]
    WithLog {
        /// What failed.
        source: Box<Failure>,
        /// The last lines.
        log: String,
    },
}

impl Failure {
    /// Adds the end of the operator's log, unless the failure has nothing to do with the operator.
    #[must_use]
    pub fn with_log(self, log: &str) -> Self {
        if matches!(self, Self::Interrupted(_)) {
            return self;
        }
        let lines: Vec<&str> = log.lines().collect();
        Self::WithLog {
            source: Box::new(self),
            log: lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::Failure;
    use crate::program::Interrupted;

    #[test]
    fn only_the_end_of_the_log_is_told() {
        let mut log = String::new();
        for number in 0..100 {
            writeln!(log, "line {number}").expect("a string takes it");
        }
        let text = Failure::Ended.with_log(&log).to_string();
        assert!(
            text.starts_with("the operator has ended by itself\n\n") && text.ends_with("line 98\nline 99"),
            "{text}"
        );
        assert!(!text.contains("line 84\n") && text.contains("line 85\n"), "{text}");
        assert_eq!(Failure::from(Interrupted).with_log(&log).to_string(), "interrupted");
    }
}
