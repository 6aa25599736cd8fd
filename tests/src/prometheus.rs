//! A real Prometheus, of the Debian package where none is installed.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Error, Operator, eventually};

use crate::running::{free_address, get};

/// On a busy machine.
const READY: Duration = Duration::from_secs(60);

/// A Prometheus as a child process. It scrapes and evaluates every second, and what it stores is gone with it.
#[derive(Debug)]
pub struct Prometheus {
    process: Operator,
    directory: TempDir,
    address: SocketAddr,
}

/// One series of an answer, at the moment of the question.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels, the name among them.
    pub labels: Value,
    /// Its value.
    pub value: f64,
}

impl Prometheus {
    /// The directory of the programs `prometheus` and `promtool`, fetched if needed.
    ///
    /// # Errors
    ///
    /// When there is none and it cannot be fetched.
    pub fn tools() -> Result<PathBuf, Error> {
        let failed = |source| Error::Io {
            what: "finding Prometheus by scripts/prometheus".into(),
            source,
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/prometheus");
        let output = Command::new(script).output().map_err(failed)?;
        if output.status.success() {
            Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
        } else {
            let problem = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(failed(io::Error::other(problem)))
        }
    }

    /// Starts one with these rules, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    ///
    /// # Panics
    ///
    /// When it does not answer, with its log.
    pub async fn start(rules: &str) -> Result<Self, Error> {
        let writing = |source| Error::Io {
            what: "writing what Prometheus reads".into(),
            source,
        };
        let directory = tempfile::tempdir().map_err(writing)?;
        let path = |name: &str| directory.path().join(name);
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [path("rules.yaml")],
            "scrape_configs": [{
                "job_name": "files",
                "file_sd_configs": [{"files": [path("targets.json")], "refresh_interval": "1s"}],
            }],
        });
        // JSON is YAML.
        fs::write(path("prometheus.yaml"), config.to_string()).map_err(writing)?;
        fs::write(path("rules.yaml"), rules).map_err(writing)?;
        fs::write(path("targets.json"), "[]").map_err(writing)?;
        let address = free_address()?;
        let arguments = [
            format!("--config.file={}", path("prometheus.yaml").display()),
            format!("--storage.tsdb.path={}", path("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let environment: [(&str, &str); 0] = [];
        let process = Operator::spawn(&Self::tools()?.join("prometheus"), arguments, environment)?;
        let mut prometheus = Self {
            process,
            directory,
            address,
        };
        eventually("Prometheus is ready", READY, async || {
            if let Some(status) = prometheus.process.exited() {
                panic!("Prometheus ended ({status}):\n{}", prometheus.process.log());
            }
            match get(address, "/-/ready").await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status}: {body}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        Ok(prometheus)
    }

    /// Has it scrape these from now on, each by the name of its job, and nothing else.
    ///
    /// # Errors
    ///
    /// When the list cannot be written.
    pub fn scrape(&self, targets: &[(&str, SocketAddr)]) -> io::Result<()> {
        let targets: Vec<Value> = targets
            .iter()
            .map(|(job, address)| json!({"targets": [address.to_string()], "labels": {"job": job}}))
            .collect();
        self.targets(&Value::from(targets))
    }

    fn targets(&self, targets: &Value) -> io::Result<()> {
        // In one step, so that it never reads half a list.
        let next = self.directory.path().join("targets.json.next");
        fs::write(&next, targets.to_string())?;
        fs::rename(next, self.directory.path().join("targets.json"))
    }

    /// Has it scrape this path from now on, and nothing else.
    ///
    /// # Errors
    ///
    /// When the list cannot be written.
    pub fn scrape_path(&self, job: &str, address: SocketAddr, path: &str) -> io::Result<()> {
        self.targets(&json!([{
            "targets": [address.to_string()],
            "labels": {"job": job, "__metrics_path__": path},
        }]))
    }

    /// What a query gives now.
    ///
    /// # Errors
    ///
    /// When it does not answer, or says that the query is wrong.
    pub async fn query(&self, query: &str) -> Result<Vec<Sample>, String> {
        let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = self.ask(&format!("/api/v1/query?query={encoded}")).await?;
        let samples = answer["data"]["result"].as_array().into_iter().flatten();
        let samples = samples.filter_map(|sample| {
            Some(Sample {
                labels: sample["metric"].clone(),
                value: sample["value"][1].as_str()?.parse().ok()?,
            })
        });
        Ok(samples.collect())
    }

    /// The names of the alerts that fire.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn firing(&self) -> Result<Vec<String>, String> {
        let answer = self.ask("/api/v1/alerts").await?;
        let alerts = answer["data"]["alerts"].as_array().into_iter().flatten();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        let names = firing.filter_map(|alert| alert["labels"]["alertname"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    async fn ask(&self, path: &str) -> Result<Value, String> {
        let (_, body) = get(self.address, path).await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] == "success" {
            Ok(answer)
        } else {
            Err(answer["error"].as_str().unwrap_or("no success").to_owned())
        }
    }
}

/// The rules with a second for each minute that an alert waits, and six for each that it looks back: what fails is tried
/// again at its own pace, and a shorter look would miss it now and then.
///
/// # Panics
///
/// Never: the pattern is valid and finds numbers of minutes only.
#[must_use]
pub fn hastened(rules: &str) -> String {
    let minutes = Regex::new(r"(for: |\[)(\d+)m\b").expect("valid");
    let seconds = |found: &regex::Captures<'_>| {
        let minutes: u32 = found[2].parse().expect("digits");
        let each = if &found[1] == "[" { 6 } else { 1 };
        format!("{}{}s", &found[1], minutes * each)
    };
    minutes.replace_all(rules, seconds).into_owned()
}
