//! Log lines on standard error: for people, or one JSON object a line.

use std::{io, panic};

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Levels of modules that are not ours, before what the user asks for.
///
/// kube's client logs a whole answer at WARN when it cannot be decoded, and its watcher repeats every failure that the
/// operator logs itself.
const QUIET: &str = "kube_client=warn,kube_client::client=off,kube_client::client::auth=warn,kube_runtime=off,\
                     hyper=warn,hyper_util=warn,rustls=warn,tower=warn,tower_http=warn,h2=warn";

/// The filter of `--log-level` cannot be read.
#[derive(Debug, Error)]
#[error("--log-level: `{filter}` is no filter: {problem}")]
pub(crate) struct InvalidFilter {
    filter: String,
    problem: String,
}

/// Starts logging. Called once, before anything logs.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<(), InvalidFilter> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(is_terminal()).init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
    }
    panic::set_hook(Box::new(|panic| {
        // Only a fixed text is shown: one made at the moment of the panic may quote what was being worked on.
        let message = panic
            .payload()
            .downcast_ref::<&'static str>()
            .copied()
            .unwrap_or("(not shown)");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(problem = message, location, "panic");
    }));
    Ok(())
}

/// Colours are for terminals, and for those who have not asked to be spared: <https://no-color.org>.
fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn filter(level: &str) -> Result<EnvFilter, InvalidFilter> {
    EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| InvalidFilter {
        filter: level.to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules() {
        for good in [
            "info",
            "off",
            "debug,leanserve::apply=trace",
            "kube_client::client=debug",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        assert!(filter("leanserve=loud").is_err_and(|error| error.to_string().contains("--log-level")));
    }

    #[test]
    fn what_the_user_asks_for_wins() {
        assert!(
            filter("kube_client::client=debug")
                .expect("valid")
                .to_string()
                .contains("kube_client::client=debug")
        );
        assert!(
            filter("info")
                .expect("valid")
                .to_string()
                .contains("kube_client::client=off")
        );
    }
}
