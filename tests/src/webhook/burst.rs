//! Many reviews at once, over HTTP/2, without an API server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::Failure;

use super::PATH;

/// Of an answer.
const DEADLINE: Duration = Duration::from_secs(120);

/// So many reviews at once.
#[derive(Clone, Debug)]
pub struct Burst {
    /// Where the webhook serves.
    pub address: SocketAddr,
    /// Whom it is trusted by, as PEM.
    pub authorities: String,
    /// How many reviews.
    pub reviews: usize,
    /// Over so many connections.
    pub connections: usize,
    /// Bytes of each body, at least.
    pub body: usize,
    /// Namespace of the reviewed services.
    pub namespace: String,
    /// The Secret they refer to, and the key.
    pub secret: (String, String),
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Allowed without a warning: checked, and nothing is missing.
    pub allowed: usize,
    /// Told that something is missing.
    pub told: usize,
    /// Told that it was not checked.
    pub unchecked: usize,
    /// No answer to the review, and why, of the first.
    pub lost: usize,
    /// Why the first that was lost was.
    pub first_loss: Option<String>,
    /// How long those took that were checked, from when they were handed to the connection.
    pub latencies: Vec<Duration>,
    /// From the first to the last.
    pub took: Duration,
}

impl Burst {
    /// A single review, over a connection of its own.
    #[must_use]
    pub fn one(address: SocketAddr, authorities: String, namespace: &str, secret: (&str, &str)) -> Self {
        Self {
            address,
            authorities,
            reviews: 1,
            connections: 1,
            body: 0,
            namespace: namespace.to_owned(),
            secret: (secret.0.to_owned(), secret.1.to_owned()),
        }
    }

    /// Sends all of them and waits for all answers.
    ///
    /// # Errors
    ///
    /// When the webhook cannot be reached.
    pub async fn send(&self) -> Result<Answers, Failure> {
        let mut senders = Vec::new();
        let connector = self.connector()?;
        for _ in 0..self.connections {
            senders.push(self.connect(&connector).await?);
        }
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..self.reviews {
            let sender = senders[number % senders.len()].clone();
            let (uid, body) = self.review(number);
            let uri = format!("https://{}{PATH}?timeout=10s", self.address);
            tasks.spawn(async move {
                let began = Instant::now();
                let answer = tokio::time::timeout(DEADLINE, post(sender, uri, body)).await;
                (
                    uid,
                    began.elapsed(),
                    answer.unwrap_or_else(|_| Err("no answer".to_owned())),
                )
            });
        }
        let mut answers = Answers::default();
        while let Some(done) = tasks.join_next().await {
            let (uid, took, answer) = done.map_err(std::io::Error::other)?;
            answers.add(&uid, took, answer);
        }
        answers.took = began.elapsed();
        Ok(answers)
    }

    fn connector(&self) -> Result<TlsConnector, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authorities.as_bytes()) {
            let certificate = certificate.map_err(std::io::Error::other)?;
            roots.add(certificate).map_err(std::io::Error::other)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    async fn connect(&self, connector: &TlsConnector) -> Result<http2::SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = connector.connect(ServerName::from(self.address.ip()), stream).await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            // Until the server has said how many it takes, hyper begins 100.
            .initial_max_send_streams(1)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn review(&self, number: usize) -> (String, Bytes) {
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        let (secret, key) = &self.secret;
        let filler = "x".repeat(self.body);
        let object = json!({
            "metadata": {"name": format!("m{number}"), "annotations": {"filler": filler}},
            "spec": {"predictor": {"model": {"storageUri": "pvc://claim/model", "env": [
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}},
            ]}}},
        });
        // In the order in which API servers write it.
        let body = format!(
            r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{uid}","kind":{{"group":"serving.kserve.io","version":"v1beta1","kind":"InferenceService"}},"namespace":"{}","operation":"CREATE","object":{object}}}}}"#,
            self.namespace
        );
        (uid, Bytes::from(body))
    }
}

async fn post(mut sender: http2::SendRequest<Full<Bytes>>, uri: String, body: Bytes) -> Result<Value, String> {
    let text = |error: hyper::Error| format!("{error:?}");
    let request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    sender.ready().await.map_err(text)?;
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(text)?.to_bytes();
    if !status.is_success() {
        return Err(format!("HTTP {status}"));
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

impl Answers {
    fn add(&mut self, uid: &str, took: Duration, answer: Result<Value, String>) {
        let answer = match answer {
            Ok(answer) if answer["response"]["uid"] == uid => answer,
            Ok(answer) => return self.lose(format!("the answer to {uid} is {answer}")),
            Err(error) => return self.lose(error),
        };
        let response = &answer["response"];
        let told = response["warnings"].to_string() + &response["status"].to_string();
        if told.contains("were not checked") {
            self.unchecked += 1;
            return;
        }
        self.latencies.push(took);
        if response["allowed"] == true && response.get("warnings").is_none() {
            self.allowed += 1;
        } else {
            self.told += 1;
        }
    }

    fn lose(&mut self, why: String) {
        self.lost += 1;
        self.first_loss.get_or_insert(why);
    }
}
