//! Who may ask, when the webhook is told whose clients it serves.

use std::{fs, path::Path};

use leanserve_tests::{
    Installation, services,
    webhook::{Burst, FailurePolicy, Site},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use testkit::{ControlPlane, Options};

use crate::{create, port, reviews, secret, service};

/// An authority and a client certificate of it, in files.
fn identify(directory: &Path) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority of API servers");
    let anchor = authority.self_signed(&authority_key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut client = CertificateParams::default();
    client.distinguished_name.push(DnType::CommonName, "an API server");
    client.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    let issuer = Issuer::from_params(&authority, &authority_key);
    let certificate = client.signed_by(&key, &issuer).expect("a certificate");
    for (name, text) in [
        ("authority.pem", anchor.pem()),
        ("client.pem", certificate.pem()),
        ("client.key", key.serialize_pem()),
    ] {
        fs::write(directory.join(name), text).expect("writable");
    }
}

/// Tells an API server what to show webhooks. Returns its flag.
fn configure(directory: &Path) -> String {
    let write = |name: &str, content: &Value| {
        let path = directory.join(name);
        fs::write(&path, content.to_string()).expect("writable");
        path
    };
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config",
        "users": [{"name": "*", "user": {
            "client-certificate": directory.join("client.pem"), "client-key": directory.join("client.key"),
        }}],
    });
    let kubeconfig = write("kubeconfig", &kubeconfig);
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "ValidatingAdmissionWebhook", "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": kubeconfig,
        }}],
    });
    let configuration = write("admission.json", &configuration);
    format!("--admission-control-config-file={}", configuration.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn api_servers_are_answered_and_nobody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    identify(directory.path());
    let options = Options {
        apiserver_flags: vec![configure(directory.path())],
        ..Options::bare()
    };
    let plane = ControlPlane::start(options).await.expect("a control plane");
    let _installation = Installation::on(&plane).await.expect("installed");
    let site = Site::new(&plane, port(), FailurePolicy::Fail).await.expect("installed");
    let tenant = site.tenant.name.as_str();
    let authority = directory.path().join("authority.pem");
    let authority = authority.to_str().expect("a temporary directory has a plain name");
    let flags = ["--enforcement-action", "deny", "--client-ca-file", authority];
    let replica = site.replica(site.address, &flags).await.expect("a replica");
    let client = plane.client().await.expect("a client");

    let refused = create(&client, tenant, &service("m", "tokens", "hf")).await;
    let message = refused.body["message"].as_str().unwrap_or_default();
    assert_eq!(refused.code, 403, "{}\n{}", refused.body, replica.process.log());
    assert!(message.contains("Secret"), "{message}");
    let tokens = services::list(&[secret("tokens", tenant, "hf", "value")]);
    plane.apply_yaml(&tokens).await.expect("applied");
    let allowed = create(&client, tenant, &service("m", "tokens", "hf")).await;
    assert_eq!(allowed.code, 201, "{}", allowed.body);

    // The same review, by somebody who reaches the port and trusts its certificate.
    let before = reviews(&replica).await;
    let authorities = site.authorities().await.expect("a configuration");
    let stranger = Burst::one(site.address, authorities, tenant, ("tokens", "hf"));
    // With TLS 1.3 a client learns that it is turned away when it reads for the first time.
    if let Ok(answers) = stranger.send().await {
        assert_eq!(answers.lost, 1, "{answers:?}");
    }
    let after = reviews(&replica).await;
    assert!(
        before > 1.0 && (after - before).abs() < 0.5,
        "{before} and then {after}"
    );
}
