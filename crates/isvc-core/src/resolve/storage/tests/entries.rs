//! The storage Secret.

use super::*;

fn entry(type_: Option<&str>, bucket: Option<&str>) -> StorageEntry {
    StorageEntry {
        type_: type_.map(str::to_owned),
        bucket: bucket.map(str::to_owned),
        ..StorageEntry::default()
    }
}

/// A model that `storage` describes, and the Secret's entries.
fn described(storage: &Value, entries: Option<&[(&str, StorageEntry)]>) -> Observed {
    let mut service = observed(&json!({"model": {"storage": storage}}));
    let secret = match entries {
        None => Lookup::Missing,
        Some(entries) => {
            let entries = entries.iter().map(|(key, entry)| ((*key).to_owned(), entry.clone()));
            Lookup::Found(CredentialFacts {
                storage_entries: entries.collect(),
                ..CredentialFacts::default()
            })
        }
    };
    service.by_name.secrets.insert("storage-config".to_owned(), secret);
    service
}

/// The URI that is downloaded, and the entry that is referred to.
#[track_caller]
fn check(storage: &Value, entries: Option<&[(&str, StorageEntry)]>, uri: &str, key: Option<&str>) {
    let pod = brought(&described(storage, entries));
    let initializer = &pod["initContainers"][0];
    assert_eq!(initializer["args"], json!([uri, "/mnt/models"]));
    let env = initializer["env"].as_array().expect("a list");
    let config = env.iter().find(|variable| variable["name"] == "STORAGE_CONFIG");
    let found = config.map(|variable| variable["valueFrom"]["secretKeyRef"]["key"].clone());
    assert_eq!(found, key.map(Value::from));
}

#[track_caller]
fn check_refused(storage: &Value, entries: Option<&[(&str, StorageEntry)]>, event: &str) {
    let rejection = refused(&described(storage, entries));
    assert_eq!(rejection.event, event);
    let names_both = rejection.message.contains("n/storage-config") || rejection.message.contains("model.storage");
    assert!(names_both, "{}", rejection.message);
}

#[test]
fn an_entry_says_where_the_storage_is() {
    let main = [("main", entry(Some("s3"), Some("models")))];
    let stored = |storage: &Value, uri: &str| check(storage, Some(&main), uri, Some("main"));
    stored(&json!({"key": "main", "path": "a/b"}), "s3://models/a/b");
    stored(&json!({"key": "main", "path": "/a"}), "s3://models/a");
    stored(
        &json!({"key": "main", "path": "a", "parameters": {"bucket": "other"}}),
        "s3://other/a",
    );
    let hdfs = [("main", entry(Some("webhdfs"), Some("ignored")))];
    check(
        &json!({"key": "main", "path": "a"}),
        Some(&hdfs),
        "webhdfs://a",
        Some("main"),
    );
}

#[test]
fn without_a_key_a_default_may_be_there() {
    let both = [
        ("default", entry(Some("s3"), Some("d"))),
        ("default_s3", entry(Some("s3"), Some("ds3"))),
    ];
    check(&json!({"path": "a"}), Some(&both), "s3://d/a", Some("default"));
    let parameters = json!({"path": "a", "parameters": {"type": "s3", "bucket": "p"}});
    check(&parameters, Some(&both), "s3://p/a", Some("default_s3"));
    check(&parameters, Some(&[]), "s3://p/a", None);
    check(&parameters, None, "s3://p/a", None);
    let hdfs = json!({"path": "a", "parameters": {"type": "hdfs"}});
    check(&hdfs, Some(&both), "hdfs://a", None);
    check_refused(&json!({"path": "a"}), None, "unable to determine storage type");
}

#[test]
fn an_entry_that_cannot_be_used_is_named() {
    let key = json!({"key": "k", "path": "a"});
    let with = |entry: StorageEntry, event: &str| check_refused(&key, Some(&[("k", entry)]), event);
    with(entry(None, Some("b")), "unable to determine storage type");
    with(
        entry(Some("gs"), Some("b")),
        "storage type must be one of [s3, hdfs, webhdfs]. storage type [gs] is not supported",
    );
    with(
        entry(Some("s3"), None),
        "format [s3] requires a bucket but one wasn't found in storage data or parameters",
    );
    with(
        StorageEntry {
            problem: Some("it is broken"),
            ..StorageEntry::default()
        },
        "invalid json encountered in key k of storage secret storage-config: it is broken",
    );
    check_refused(
        &key,
        Some(&[]),
        "specified storage key k not found in storage secret storage-config",
    );
    check_refused(
        &key,
        None,
        "can't read storage secret storage-config: secrets \"storage-config\" not found",
    );
    let mut unreadable = described(&key, None);
    let why = Lookup::Unreadable("it is forbidden".to_owned());
    unreadable.by_name.secrets.insert("storage-config".to_owned(), why);
    assert_eq!(refused(&unreadable).reason, "SecretNotReadable");
}

#[test]
fn an_annotation_names_another_storage_secret() {
    let mut service = described(&json!({"key": "k", "path": "a"}), None);
    let annotation = "serving.kserve.io/storageSecretName".to_owned();
    service.service.meta.annotations.insert(annotation, "other".to_owned());
    let other = Lookup::Found(CredentialFacts {
        storage_entries: BTreeMap::from([("k".to_owned(), entry(Some("s3"), Some("b")))]),
        ..CredentialFacts::default()
    });
    service.by_name.secrets.insert("other".to_owned(), other);
    let pod = brought(&service);
    assert_eq!(
        pod["initContainers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"],
        "other"
    );
}

#[test]
fn parameters_are_written_as_kserve_writes_them() {
    let storage = json!({"path": "a", "parameters": {"type": "s3", "bucket": "b", "x": "<&>"}});
    let service = described(&storage, None);
    let expected = r#"{"bucket":"b","type":"s3","x":"\u003c\u0026\u003e"}"#;
    let annotations = annotations(&service.service.spec.predictor, None);
    assert_eq!(annotations[names::ANNOTATION_STORAGE_SPEC_PARAM], expected);
    let pod = brought(&service);
    assert_eq!(pod["initContainers"][0]["env"][0]["value"], expected);
}

#[test]
fn a_uri_and_a_path_are_one_too_many() {
    let service = observed(&json!({"model": {"storageUri": "s3://b/a", "storage": {"path": "a"}}}));
    let rejection = refused(&service);
    assert_eq!(rejection.event, "must provide only one of storageUri and storage.path");
}
