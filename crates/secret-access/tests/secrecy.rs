//! A value that is planted in a Secret is found nowhere but in its snapshot: not in any log at TRACE, not in any error, not
//! in what `Debug` shows.
//!
//! Over a real connection, through kube's own stack of layers and hyper, because it is their logs that must stay clean.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube_secret_access::{
    AccessOptions, Mode, ReadError, SecretAccess, SecretRef, SecretSnapshot, Switch, UnavailableCause, Want,
};
use testkit::captured_logs::CapturedLogs;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What is searched for, and how it looks in a body.
const PLANTED: &str = "planted-5e1f00d";
const PLANTED_BASE64: &str = "cGxhbnRlZC01ZTFmMDBk";

/// What is logged on purpose, by the way this crate does not go.
const CONTROL: &str = "control-77aa01";

fn body(name: &str) -> String {
    format!(
        r#"{{"kind":"Secret","apiVersion":"v1","metadata":{{"namespace":"ns","name":"{name}","uid":"u","resourceVersion":"7","annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{PLANTED}","note":"{PLANTED}"}}}},"type":"Opaque","data":{{"k":"{PLANTED_BASE64}"}}}}"#
    )
}

/// What the server answers for a Secret of this name: status line, headers, body. The names are the cases.
fn answers() -> BTreeMap<&'static str, (&'static str, String)> {
    let mut wrong_type = body("wrong-type");
    wrong_type = wrong_type.replace(r#""data":{"#, &format!(r#""data":{{"x":["{PLANTED}"],"#));
    let status = |reason: &str| format!(r#"{{"kind":"Status","reason":"{reason}","message":"{PLANTED}"}}"#);
    BTreeMap::from([
        ("control", ("200 OK", format!("<{CONTROL}>"))),
        ("good", ("200 OK", body("good"))),
        ("cut", ("200 OK", body("cut")[..200].to_owned())),
        ("not-json", ("200 OK", format!("{PLANTED} {PLANTED_BASE64}"))),
        (
            "not-base64",
            ("200 OK", body("not-base64").replace(PLANTED_BASE64, PLANTED)),
        ),
        ("wrong-type", ("200 OK", wrong_type)),
        ("wrong-name", ("200 OK", body(PLANTED))),
        (
            "wrong-kind",
            (
                "200 OK",
                body("wrong-kind").replace("\"Secret\"", &format!("\"{PLANTED}\"")),
            ),
        ),
        (
            "wrong-version",
            (
                "200 OK",
                body("wrong-version").replace("\"7\"", &format!("\"{PLANTED}\"")),
            ),
        ),
        (
            "too-large",
            ("200 OK", body("too-large").replace("Opaque", &PLANTED.repeat(500))),
        ),
        ("forbidden", ("403 Forbidden", status("Forbidden"))),
        ("unauthorized", ("401 Unauthorized", status("Unauthorized"))),
        ("missing", ("404 Not Found", status("NotFound"))),
        ("lost", ("404 Not Found", PLANTED.to_owned())),
        ("throttled", ("429 Too Many Requests", status("TooManyRequests"))),
        ("broken", ("500 Internal Server Error", status("InternalError"))),
        ("unavailable", ("503 Service Unavailable", status("ServiceUnavailable"))),
    ])
}

/// A server of few words. Counts requests by name.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<BTreeMap<String, usize>>>);

impl Server {
    async fn start() -> (Self, kube::Config) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = Self::default();
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        let url = format!("http://{address}").parse().expect("a valid URL");
        (server, kube::Config::new(url))
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|bytes| bytes > 0) {
            if let Some(path) = line.strip_prefix("GET ") {
                let name = path.split([' ', '?']).next().and_then(|path| path.rsplit('/').next());
                let name = name.expect("a path ends somewhere").to_owned();
                let mut header = String::new();
                while stream.read_line(&mut header).await.is_ok_and(|bytes| bytes > 2) {
                    header.clear();
                }
                *self
                    .0
                    .lock()
                    .expect("no panic while locked")
                    .entry(name.clone())
                    .or_default() += 1;
                let answers = answers();
                let (status, body) = &answers[name.as_str()];
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            line.clear();
        }
    }

    fn requests(&self, name: &str) -> usize {
        self.0
            .lock()
            .expect("no panic while locked")
            .get(name)
            .copied()
            .unwrap_or(0)
    }
}

fn options(mode: Mode) -> AccessOptions {
    let mut options = AccessOptions::for_mode(mode);
    options.fetch.max_body_bytes = 5000;
    options.fetch.retry.max_retries = 0;
    options
}

fn shown(result: &Result<Arc<SecretSnapshot>, ReadError>) -> String {
    let mut shown = String::new();
    match result {
        Ok(snapshot) => {
            let bytes = snapshot.bytes("k");
            write!(shown, "{snapshot:?} {snapshot:#?} {bytes:?} {bytes:#?}")
        }
        Err(error) => write!(
            shown,
            "{error} {error:?} {error:#?} {:?} {:?}",
            error.retry(),
            error.kind()
        ),
    }
    .expect("a String takes everything");
    shown
}

#[tokio::test]
async fn a_planted_value_is_nowhere() {
    let log = CapturedLogs::of_process();
    let (server, config) = Server::start().await;
    let client = kube_secret_access::client(config).expect("plain HTTP needs nothing");
    for mode in Mode::ALL {
        let access = Switch::new(client.clone(), options(mode)).expect("valid options");
        for name in answers().keys() {
            let secret = SecretRef::new("ns", name).expect("a valid name");
            let before = server.requests(name);
            let read = tokio::time::timeout(Duration::from_secs(60), access.read(&secret, Want::default())).await;
            let result = read.expect("a read has its own deadline");
            assert_eq!(server.requests(name), before + 1, "{name}: one request, no retry");
            assert_eq!(result.is_ok(), *name == "good", "{name}: {result:?}");
            let shown = shown(&result);
            assert!(
                !shown.contains(PLANTED) && !shown.contains(PLANTED_BASE64),
                "{name}: {shown}"
            );
            if let Ok(snapshot) = result {
                assert_eq!(
                    snapshot.bytes("k").and_then(|bytes| bytes.as_str()),
                    Some(PLANTED),
                    "it was there"
                );
            }
        }
        let shown = format!("{access:?} {:?}", access.options());
        assert!(!shown.contains(PLANTED), "{shown}");
    }
    let text = log.text();
    assert!(
        text.contains("requesting") && text.contains("secrets/good"),
        "kube's own spans and events were captured: {text}"
    );
    let leak = text
        .lines()
        .find(|line| line.contains(PLANTED) || line.contains(PLANTED_BASE64));
    assert_eq!(leak, None);
}

/// The control: kube's own decoder logs the body of an answer it does not understand, and the search finds it.
#[tokio::test]
async fn the_search_would_find_a_leak() {
    let log = CapturedLogs::of_process();
    let (_, config) = Server::start().await;
    let client = kube_secret_access::client(config).expect("plain HTTP needs nothing");
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(client, "ns");
    assert!(secrets.get("control").await.is_err());
    assert!(log.contains(CONTROL));
}

#[tokio::test]
async fn debug_of_an_access_shows_its_mode() {
    let (_, config) = Server::start().await;
    let client = kube_secret_access::client(config).expect("plain HTTP needs nothing");
    for mode in Mode::ALL {
        let access = Switch::new(client.clone(), AccessOptions::for_mode(mode)).expect("valid");
        assert!(format!("{access:?}").starts_with("Switch { mode: "));
    }
}

#[tokio::test]
async fn nobody_listening_is_a_refused_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    let config = kube::Config::new(url.parse().expect("a valid URL"));
    let client = kube_secret_access::client(config).expect("plain HTTP needs nothing");
    let access = Switch::new(client, AccessOptions::default()).expect("valid options");
    let secret = SecretRef::new("ns", "s").expect("a valid name");
    let error = access.read(&secret, Want::default()).await.expect_err("nobody listens");
    let refused = UnavailableCause::Connection(Some(std::io::ErrorKind::ConnectionRefused));
    assert!(
        matches!(&error, ReadError::Unavailable { cause, .. } if *cause == refused),
        "{error}"
    );
}
