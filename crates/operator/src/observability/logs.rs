//! Log lines on standard error: for people, or one JSON object a line.

mod json;

use std::{io, panic};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
#[cfg(feature = "otlp")]
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

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
        LogFormat::Json => builder.event_format(json::JsonLines).init(),
    }
    tell_panics();
    Ok(())
}

/// As [`start`], with spans going elsewhere: lines of the log stay as they are.
#[cfg(feature = "otlp")]
pub(crate) fn start_with(
    format: LogFormat,
    level: &str,
    spans: Box<dyn Layer<Registry> + Send + Sync>,
) -> Result<(), InvalidFilter> {
    let off = format!("{}=off", super::spans::TARGET);
    let off = off.parse().expect("a target and a level are a directive");
    let filter = filter(level)?.add_directive(off);
    let registry = tracing_subscriber::registry().with(spans);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(is_terminal()).with_filter(filter)).init(),
        LogFormat::Json => registry
            .with(lines.event_format(json::JsonLines).with_filter(filter))
            .init(),
    }
    tell_panics();
    Ok(())
}

fn tell_panics() {
    panic::set_hook(Box::new(|panic| {
        // Only a fixed text is shown: one made at the moment of the panic may quote what was being worked on.
        let message = panic
            .payload()
            .downcast_ref::<&'static str>()
            .copied()
            .unwrap_or("(not shown)");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(error = message, location, "panic");
    }));
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
    use std::{
        collections::BTreeSet,
        fs,
        path::Path,
        sync::{Arc, Mutex},
    };

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

    /// Where lines go, to be read back.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic while it is held").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_json_has_the_keys_of_other_operators() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(json::JsonLines)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("a \"quoted\"\nproblem");
            let (name, refused) = ("iris", None::<&str>);
            tracing::warn!(namespace = "ns", name, %error, retry_ms = 5_u64, status_written = true, refused, "it failed");
        });
        let text = String::from_utf8(lines.0.lock().expect("no panic while it is held").clone()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("{\"ts\":\""), "{text}");
        let mut line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let time = line["ts"].take();
        assert!(
            time.as_str()
                .is_some_and(|time| time.parse::<k8s_openapi::jiff::Timestamp>().is_ok()),
            "{time}"
        );
        let expected = serde_json::json!({
            "ts": null, "level": "warn", "logger": "leanserve.observability.logs.tests", "msg": "it failed",
            "namespace": "ns", "name": "iris", "error": "a \"quoted\"\nproblem", "retry_ms": 5, "status_written": true,
        });
        assert_eq!(line, expected);
    }

    /// What `docs/logs.md` lists, and what the code logs, is the same.
    #[test]
    fn every_key_is_documented_and_in_use() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = fs::read_to_string(root.join("../../docs/logs.md")).expect("the page");
        let rows = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let documented: BTreeSet<String> = rows.map(|(key, _)| key.to_owned()).collect();
        let mut used = BTreeSet::new();
        sources(&root.join("src"), &mut |text| used.extend(keys(text)));
        for key in ["ts", "level", "logger", "msg"].map(str::to_owned) {
            assert!(
                !used.contains(&key),
                "`{key}` is in every line and means something else"
            );
            used.insert(key);
        }
        assert_eq!(used, documented);
    }

    fn sources(directory: &Path, see: &mut impl FnMut(&str)) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                sources(&path, see);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("readable");
                // Tests log nothing that anybody reads.
                see(text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default());
            }
        }
    }

    /// The keys of all events in a source file: what stands before the text, up to `=` where there is one.
    fn keys(source: &str) -> Vec<String> {
        let levels = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
        let events = levels
            .iter()
            .flat_map(|level| source.match_indices(level).map(|(at, _)| &source[at + level.len()..]));
        let fields = events.flat_map(fields);
        let names = fields.map(|field| field.split('=').next().unwrap_or_default().trim().to_owned());
        let names = names.map(|name| name.trim_start_matches(['%', '?']).to_owned());
        let is_key = |name: &String| {
            let letters = name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
            !name.is_empty() && letters
        };
        names.filter(is_key).collect()
    }

    /// The arguments of a macro before its text, without what is in parentheses in them.
    fn fields(arguments: &str) -> Vec<String> {
        let (mut fields, mut depth, mut quoted) = (vec![String::new()], 0, false);
        for character in arguments.chars() {
            match character {
                '"' if depth == 0 => break,
                '"' => quoted = !quoted,
                _ if quoted => {}
                '(' => depth += 1,
                ')' if depth == 0 => break,
                ')' => depth -= 1,
                ',' if depth == 0 => fields.push(String::new()),
                other if depth == 0 => fields.last_mut().expect("there is one").push(other),
                _ => {}
            }
        }
        fields
    }
}
