//! Writing kubeconfig files.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use k8s_openapi::ByteString;
use serde_json::json;

/// A kubeconfig with one cluster and one user, who has a bearer token. JSON, which is YAML too.
#[must_use]
pub fn with_token(url: &str, ca_pem: &[u8], user: &str, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "default",
            "cluster": {"server": url, "certificate-authority-data": ByteString(ca_pem.to_vec())},
        }],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": user, "namespace": "default"}}],
        "current-context": "default",
    });
    format!("{config:#}\n")
}

/// A certificate in PEM.
#[must_use]
pub fn certificate_pem(der: &[u8]) -> String {
    let encoded = json!(ByteString(der.to_vec()));
    let encoded = encoded.as_str().unwrap_or_default();
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    // PEM breaks lines at 64 characters (RFC 7468); base64 is ASCII.
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// Writes a file that only its owner can read, replacing what was there.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_private(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content.as_ref())
}
