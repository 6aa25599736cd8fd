//! Certificates that somebody else makes and mounts, such as cert-manager.

use std::{fs, path::Path, sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::tls::{Certificate, Served, TlsError};
use crate::health::Health;

/// How often the files are looked at. The kubelet itself takes up to a minute to bring a new version.
const INTERVAL: Duration = Duration::from_secs(10);

/// What is wrong with the certificate, for `/readyz`.
pub(super) const CERTIFICATE: &str = "certificate";

/// Reads the files again and again, and serves what is in them. Files that do not belong together, as between two writes,
/// leave what was served before. Never ends.
pub(super) async fn follow(directory: &Path, served: &Served, health: &Arc<Health>) {
    let mut told = None;
    let mut has_one = false;
    loop {
        let problem = match read(directory) {
            Ok(certificate) => {
                if served.set(certificate) {
                    info!(directory = %directory.display(), "certificate in use");
                }
                has_one = true;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = problem.as_ref().filter(|_| problem != told) {
            warn!(error, "certificate not taken");
        }
        if has_one {
            health.lacks(CERTIFICATE, None);
        } else {
            health.lacks(CERTIFICATE, problem.clone());
        }
        told = problem;
        sleep(INTERVAL).await;
    }
}

/// They are small, and read seldom enough for the executor to wait.
fn read(directory: &Path) -> Result<Certificate, TlsError> {
    let file = |name: &str| {
        let path = directory.join(name);
        fs::read(&path)
            .map(Zeroizing::new)
            .map_err(|source| TlsError::Read { path, source })
    };
    Certificate::parse(&file("tls.crt")?, &file("tls.key")?)
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use testkit::eventually;

    use super::*;
    use crate::observability::metrics::WebhookMetrics;

    #[tokio::test(start_paused = true)]
    async fn new_files_are_taken_when_they_belong_together() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let write = |name: &str, content: &str| fs::write(directory.path().join(name), content).expect("writable");
        let make = || generate_simple_self_signed(vec!["a.example".to_owned()]).expect("valid");
        let health = Arc::new(Health::without_watches());
        let metrics = Arc::new(WebhookMetrics::new());
        let served = Arc::new(Served::new(Arc::clone(&metrics)));
        let following = tokio::spawn({
            let (path, served, health) = (directory.path().to_owned(), Arc::clone(&served), Arc::clone(&health));
            async move { follow(&path, &served, &health).await }
        });
        let wait = Duration::from_secs(60);
        eventually("it is told what is missing", wait, async || match health.ready() {
            Err(missing) if missing[0].contains("tls.crt") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let (one, other) = (make(), make());
        write("tls.crt", &one.cert.pem());
        write("tls.key", &one.signing_key.serialize_pem());
        eventually("ready", wait, async || {
            health.ready().map_err(|missing| missing.join(", "))
        })
        .await;
        let is = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
            let certificate =
                Certificate::parse(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes());
            // What is served already is nothing new.
            !served.set(certificate.expect("they belong together"))
        };
        assert!(is(&one));
        write("tls.crt", &other.cert.pem());
        sleep(INTERVAL * 3).await;
        assert!(is(&one), "the key is still the old one");
        assert_eq!(health.ready(), Ok(()));
        write("tls.key", &other.signing_key.serialize_pem());
        sleep(INTERVAL * 3).await;
        assert!(is(&other));
        following.abort();
    }
}
