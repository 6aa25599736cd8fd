//! The certificate that is served, which may be replaced at any time, and how connections are secured.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use x509_parser::parse_x509_certificate;

use crate::observability::metrics::WebhookMetrics;

/// A certificate, or authorities, that cannot be used. Never says what is in a key.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("there is no certificate in PEM")]
    NoCertificate,
    #[error("there is no usable private key in PEM")]
    NoKey,
    #[error("the private key is not that of the certificate")]
    Mismatch,
    #[error("--client-ca-file {path}: {problem}")]
    ClientAuthorities { path: PathBuf, problem: String },
    #[error("the TLS settings that are built in do not work: {0}")]
    Settings(#[from] rustls::Error),
}

/// A certificate with its key, in use.
#[derive(Clone)]
pub(super) struct Certificate {
    key: Arc<CertifiedKey>,
    /// Its end, in seconds since 1970.
    not_after: i64,
}

impl Certificate {
    /// Reads a chain and its key, both PEM.
    pub(super) fn parse(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::NoCertificate)?;
        let first = chain.first().ok_or(TlsError::NoCertificate)?;
        let (_, leaf) = parse_x509_certificate(first).map_err(|_| TlsError::NoCertificate)?;
        let not_after = leaf.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let key = ring::sign::any_supported_type(&key).map_err(|_| TlsError::NoKey)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| TlsError::Mismatch)?;
        Ok(Self {
            key: Arc::new(key),
            not_after,
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

/// What is served: none at first.
pub(super) struct Served {
    current: Mutex<Option<Certificate>>,
    metrics: Arc<WebhookMetrics>,
}

impl Served {
    pub(super) fn new(metrics: Arc<WebhookMetrics>) -> Self {
        Self {
            current: Mutex::new(None),
            metrics,
        }
    }

    /// Serves this one to whoever connects from now on. Returns whether it is another one.
    pub(super) fn set(&self, certificate: Certificate) -> bool {
        self.metrics.certificate(certificate.not_after);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let same = current.as_ref().is_some_and(|current| current.is_same(&certificate));
        *current = Some(certificate);
        !same
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|current| Arc::clone(&current.key))
    }
}

/// How connections are secured: with HTTP/2 on offer, and without.
#[derive(Clone)]
pub(super) struct Offers {
    pub(super) both: Arc<ServerConfig>,
    pub(super) http1: Arc<ServerConfig>,
}

impl Offers {
    /// `client_ca` is the file with the authorities of those who may ask, if not everybody may. It is read once: API servers'
    /// authorities last for years, and a Pod does not.
    pub(super) fn new(served: Arc<Served>, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let problem = |problem: String| TlsError::ClientAuthorities {
                    path: path.to_owned(),
                    problem,
                };
                let roots = roots(path, &problem)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| problem(error.to_string()))?)
            }
        };
        let mut config = builder.with_cert_resolver(served);
        // Whoever comes back shall look at the certificate again, and sessions would take memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let mut http1 = config.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            both: Arc::new(config),
            http1: Arc::new(http1),
        })
    }
}

fn roots(path: &Path, problem: &impl Fn(String) -> TlsError) -> Result<RootCertStore, TlsError> {
    let pem = fs::read(path).map_err(|error| problem(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| problem("no certificate in PEM".to_owned()))?;
        roots.add(certificate).map_err(|error| problem(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(problem("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;

    #[test]
    fn only_a_certificate_with_its_own_key_is_taken() {
        let make = || generate_simple_self_signed(vec!["a.example".to_owned()]).expect("valid");
        let (one, other) = (make(), make());
        let parse = |chain: &str, key: &str| Certificate::parse(chain.as_bytes(), key.as_bytes());
        let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let certificate = parse(&chain, &key).expect("they belong together");
        assert!(matches!(
            parse(&chain, &other.signing_key.serialize_pem()),
            Err(TlsError::Mismatch)
        ));
        assert!(matches!(parse("", &key), Err(TlsError::NoCertificate)));
        assert!(matches!(parse(&chain, "planted"), Err(TlsError::NoKey)));
        let served = Served::new(Arc::new(WebhookMetrics::new()));
        assert!(served.set(certificate.clone()) && !served.set(certificate));
        let other = parse(&other.cert.pem(), &other.signing_key.serialize_pem()).expect("they belong together");
        assert!(served.set(other));
    }

    #[test]
    fn authorities_of_clients_that_cannot_be_read_are_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let served = || Arc::new(Served::new(Arc::new(WebhookMetrics::new())));
        let error = Offers::new(served(), Some(file.path())).err().expect("it is empty");
        assert!(error.to_string().contains("--client-ca-file"), "{error}");
        assert!(Offers::new(served(), None).is_ok());
        let authority = generate_simple_self_signed(vec!["a.example".to_owned()]).expect("valid");
        fs::write(file.path(), authority.cert.pem()).expect("writable");
        assert!(Offers::new(served(), Some(file.path())).is_ok());
    }
}
