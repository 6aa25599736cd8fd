//! Certificate authorities.

use super::*;

#[test]
fn a_namespace_gets_the_certificates_of_the_platform() {
    let with = |found: Option<Lookup<CaBundleSource>>| {
        let mut service = model("pvc://c");
        settings(&mut service).storage_initializer.ca_bundle_config_map_name = Some("corp-ca".to_owned());
        service.by_name.ca_bundle = found;
        service
    };
    let source = |text: Option<&str>| {
        Some(Lookup::Found(CaBundleSource {
            certificates: text.map(Arc::from),
        }))
    };
    let found = with(source(Some("PEM")));
    let copy = ca_bundle_copy(&found).expect("it is there").expect("it is wanted");
    assert_eq!((copy.namespace.as_str(), &*copy.certificates), ("n", "PEM"));
    assert_eq!(ca_bundle_copy(&model("pvc://c")), Ok(None), "none is configured");

    for (facts, reason, event) in [
        (
            source(None),
            "CaBundleKeyNotFound",
            "specified cabundle file cabundle.crt not found in cabundle configmap corp-ca",
        ),
        (
            source(Some("")),
            "CaBundleKeyNotFound",
            "specified cabundle file cabundle.crt not found in cabundle configmap corp-ca",
        ),
        (
            Some(Lookup::Missing),
            "CaBundleNotFound",
            "failed to get configmap corp-ca from cluster",
        ),
    ] {
        let mut missing = with(facts);
        let rejection = ca_bundle_copy(&missing).expect_err("it is missing");
        assert_eq!((rejection.reason, rejection.event.as_str()), (reason, event));
        assert!(rejection.message.contains("ConfigMap kserve/corp-ca"), "{rejection:?}");

        // Stopping a service needs no certificates.
        let annotations = &mut missing.service.meta.annotations;
        annotations.insert(names::ANNOTATION_STOP.to_owned(), "true".to_owned());
        assert_eq!(ca_bundle_copy(&missing), Ok(None));
    }
    let unreadable = with(Some(Lookup::Unreadable("it is forbidden".to_owned())));
    let rejection = ca_bundle_copy(&unreadable).expect_err("it cannot be read");
    assert_eq!(rejection.reason, "CaBundleNotReadable");

    let mut stopped = with(source(Some("PEM")));
    let annotations = &mut stopped.service.meta.annotations;
    annotations.insert(names::ANNOTATION_STOP.to_owned(), "true".to_owned());
    assert!(ca_bundle_copy(&stopped).expect("it is there").is_some());
}

#[test]
fn an_s3_secret_s_own_certificates_go_before_the_platform_s() {
    let check = |literals: &[(&str, &str)], expected: Option<(&str, &str)>| {
        let mut service = model("s3://b/a");
        let platform = &mut settings(&mut service).credentials.s3;
        let literal = |name: &str| {
            let found = literals.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let secret_key = platform.secret_access_key_name.clone();
        let facts = CredentialFacts {
            keys: [platform.access_key_id_name.clone(), secret_key].into(),
            literals: ["AWS_CA_BUNDLE", "AWS_CA_BUNDLE_CONFIGMAP"]
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), literal(name)?)))
                .collect(),
            ..CredentialFacts::default()
        };
        settings(&mut service).storage_initializer.ca_bundle_config_map_name = literal("platform");
        let account = ServiceAccountFacts {
            secrets: vec!["s3".to_owned()],
            ..ServiceAccountFacts::default()
        };
        let by_name = &mut service.by_name;
        by_name
            .service_accounts
            .insert("default".to_owned(), Lookup::Found(account));
        by_name.secrets.insert("s3".to_owned(), Lookup::Found(facts));
        let pod = brought(&service);
        let mounts = pod["initContainers"][0]["volumeMounts"].as_array().expect("a list");
        let path = mounts.iter().find(|mount| mount["name"] == "cabundle-cert");
        let volumes = pod["volumes"].as_array().expect("a list");
        let config_map = volumes.iter().find(|volume| volume["name"] == "cabundle-cert");
        let found = config_map
            .zip(path)
            .map(|(volume, mount)| (volume["configMap"]["name"].clone(), mount["mountPath"].clone()));
        let expected = expected.map(|(name, path)| (Value::from(name), Value::from(path)));
        assert_eq!(found, expected, "{literals:?}");
    };
    let (own, file, platform) = ("AWS_CA_BUNDLE_CONFIGMAP", "AWS_CA_BUNDLE", "platform");
    let default = "/etc/ssl/custom-certs";
    check(&[], None);
    check(&[(own, "")], None);
    check(&[(own, "s3-ca")], Some(("s3-ca", default)));
    check(&[(own, "s3-ca"), (file, "/opt/ca/ca.pem")], Some(("s3-ca", "/opt/ca")));
    check(&[(own, "s3-ca"), (file, "ca.pem")], Some(("s3-ca", default)));
    check(&[(own, "s3-ca"), (platform, "corp")], Some(("s3-ca", default)));
    check(&[(platform, "corp")], Some(("global-ca-bundle", default)));
    check(&[(platform, "corp"), (file, "")], Some(("global-ca-bundle", default)));
    // Without a ConfigMap the file is already in the image.
    check(&[(file, "/opt/ca/ca.pem")], None);
}

#[test]
fn the_platform_s_own_namespace_uses_the_original_certificates() {
    let mut service = model("s3://b/a");
    settings(&mut service).storage_initializer.ca_bundle_config_map_name = Some("corp-ca".to_owned());
    "kserve".clone_into(&mut service.service.meta.namespace);
    assert_eq!(ca_bundle_copy(&service), Ok(None));
    let pod = brought(&service);
    assert_eq!(pod["volumes"][1]["configMap"]["name"], "corp-ca");
    "n".clone_into(&mut service.service.meta.namespace);
    let pod = brought(&service);
    assert_eq!(pod["volumes"][1]["configMap"]["name"], "global-ca-bundle");
}
