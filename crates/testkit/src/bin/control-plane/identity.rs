//! Who is who: the CA, the server's certificate, the key of service account tokens, users and their kubeconfigs.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use testkit::kubeconfig;

/// A user of the API server: file name of its kubeconfig, user name, group.
const USERS: [(&str, &str, &str); 7] = [
    ("admin", "admin", "system:masters"),
    (
        "kube-controller-manager",
        "system:kube-controller-manager",
        "system:authenticated",
    ),
    ("kube-scheduler", "system:kube-scheduler", "system:authenticated"),
    // It plays kubelet for every node, which no built-in role covers.
    ("kwok", "kwok", "system:masters"),
    // Of a real node, where there is one.
    ("kubelet", "system:node:node", "system:nodes"),
    ("kube-proxy", "system:kube-proxy", "system:authenticated"),
    // No built-in role is for it.
    ("coredns", "coredns", "system:masters"),
];

/// Names and addresses the server answers to; the last is the `kubernetes` Service of 10.0.0.0/16.
const SERVER_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default.svc",
    "127.0.0.1",
    "10.0.0.1",
];

/// Paths of everything secret.
pub(crate) struct Identities {
    directory: PathBuf,
    ca_pem: String,
    tokens: Vec<(&'static str, String)>,
}

impl Identities {
    /// Makes them all anew, below `directory`.
    pub(crate) fn create(directory: &Path, node_address: Option<Ipv4Addr>) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let write = |name: &str, content: &str| kubeconfig::write_private(&directory.join(name), content);

        let (ca_pem, certificate, key) = certificates(node_address).map_err(io::Error::other)?;
        write("ca.pem", &ca_pem)?;
        write("server.pem", &certificate)?;
        write("server-key.pem", &key)?;

        let signing = KeyPair::generate().map_err(io::Error::other)?;
        write("service-accounts-key.pem", &signing.serialize_pem())?;
        write("service-accounts.pem", &signing.public_key_pem())?;

        let mut lines = String::new();
        let mut tokens = Vec::new();
        for (number, (file, user, group)) in USERS.into_iter().enumerate() {
            let token = random_token()?;
            // Columns: token, user name, user id, quoted groups.
            writeln!(lines, "{token},{user},{number},\"{group}\"").map_err(io::Error::other)?;
            tokens.push((file, token));
        }
        write("tokens.csv", &lines)?;
        Ok(Self {
            directory: directory.to_owned(),
            ca_pem,
            tokens,
        })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes the kubeconfigs for a server at `url`.
    pub(crate) fn write_kubeconfigs(&self, url: &str) -> io::Result<()> {
        for (user, token) in &self.tokens {
            let text = kubeconfig::with_token(url, self.ca_pem.as_bytes(), user, token);
            kubeconfig::write_private(&self.kubeconfig(user), text)?;
        }
        Ok(())
    }

    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.kubeconfig"))
    }
}

/// PEM of the CA, of the server's certificate and of the server's key. The CA's key is not kept.
fn certificates(node_address: Option<Ipv4Addr>) -> Result<(String, String, String), rcgen::Error> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "leanserve test control plane");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;

    let names: Vec<String> = SERVER_NAMES
        .map(str::to_owned)
        .into_iter()
        .chain(node_address.map(|address| address.to_string()))
        .collect();
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &Issuer::from_params(&ca, &ca_key))?;
    Ok((ca_certificate.pem(), certificate.pem(), server_key.serialize_pem()))
}

/// 256 bits from the kernel, in hex.
fn random_token() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        write!(text, "{byte:02x}").map_err(io::Error::other)?;
    }
    Ok(text)
}
