//! `storageUris`.

use super::*;

fn list(entries: &[(&str, &str)]) -> Observed {
    let entries: Vec<Value> = entries
        .iter()
        .map(|(uri, path)| json!({"uri": uri, "mountPath": path}))
        .collect();
    observed(&json!({"model": {}, "storageUris": entries}))
}

#[test]
fn a_listed_claim_keeps_its_sub_path_which_kserve_drops() {
    let pod = brought(&list(&[("pvc://claim/deep/dir", "/mnt/a"), ("pvc://claim", "/mnt/b")]));
    assert_eq!(
        pod["containers"][0]["volumeMounts"],
        json!([
            {"name": "mnt-a", "mountPath": "/mnt/a", "readOnly": true, "subPath": "deep/dir"},
            {"name": "mnt-b", "mountPath": "/mnt/b", "readOnly": true},
        ])
    );
}

#[test]
fn downloads_share_the_directory_above_them() {
    let check = |paths: &[&str], expected: &str| {
        let entries: Vec<_> = paths.iter().map(|path| ("s3://b/a", *path)).collect();
        let pod = brought(&list(&entries));
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], expected);
        assert_eq!(pod["initContainers"][0]["volumeMounts"][0]["mountPath"], expected);
    };
    check(&["/mnt/models"], "/mnt/models");
    check(&["/mnt/models/a", "/mnt/models/b"], "/mnt/models");
    check(&["/a/b/c", "/a/b/d", "/a/e/f"], "/a");
    check(&["/mnt/models", "/mnt/models/b"], "/mnt/models");
    check(&["/mnt/model", "/mnt/models"], "/mnt");
}

#[test]
fn names_of_volumes_are_valid_and_differ_where_paths_do() {
    let entries = [
        ("pvc://c", "/mnt/a/b"),
        ("pvc://c", "/mnt/a-b"),
        ("pvc://c", "/mnt/My_Model"),
        ("pvc://c", "/mnt/my.model"),
        (
            "pvc://c",
            "/x/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        ("pvc://c", "/___"),
        ("pvc://c", "/m\u{f6}del"),
    ];
    let pod = brought(&list(&entries));
    let volumes = pod["volumes"].as_array().expect("a list");
    let names: Vec<_> = volumes.iter().map(|v| v["name"].as_str().expect("a name")).collect();
    assert_eq!(names.len(), entries.len());
    assert_eq!(names[0], "mnt-a-b", "as KServe names it");
    let mut different = names.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), names.len(), "{names:?}");
    for name in names {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(name.len() <= 63 && name.bytes().all(allowed), "{name}");
        assert!(!name.starts_with('-') && !name.ends_with('-'), "{name}");
    }
}

#[test]
fn a_path_takes_one_volume() {
    for entries in [
        [("pvc://a", "/mnt/a"), ("pvc://b", "/mnt/a")],
        [("pvc://a", "/mnt/a"), ("s3://b/a", "/mnt/a/")],
        [("oci+native://r/a", "/mnt/a"), ("oci+native://r/b", "/mnt/a")],
        [("oci+modelcar://r/a", "/mnt/a"), ("oci+modelcar://r/b", "/mnt/b")],
    ] {
        let rejection = refused(&list(&entries));
        assert!(
            rejection.message.contains("would both need a volume at /mnt"),
            "{rejection:?}"
        );
        assert!(rejection.message.starts_with("spec.predictor.storageUris: "));
    }
}

#[test]
fn the_first_uri_finds_the_container_and_it_must_take_several() {
    let spec = |several: bool| {
        json!({
            "container": {"name": "puller", "image": "own"},
            "supportedUriFormats": [{"prefix": "s3://"}],
            "supportsMultiModelDownload": several,
        })
    };
    let with = |entries: &[(&str, &str)], several: bool| {
        let mut service = list(entries);
        service.storage_containers = vec![storage_container("own", spec(several))];
        service
    };
    let first = [("s3://b/a", "/mnt/a/x"), ("hf://b/a", "/mnt/a/y")];
    assert_eq!(brought(&with(&first, true))["initContainers"][0]["image"], "own");
    let second = [("hf://b/a", "/mnt/a/x"), ("s3://b/a", "/mnt/a/y")];
    assert_ne!(brought(&with(&second, false))["initContainers"][0]["image"], "own");

    let rejection = refused(&with(&first, false));
    assert_eq!(
        rejection.event,
        "fails to create NewRawKubeReconciler for predictor: storage container \"puller\" does not support multi-model \
         download; use the default kserve storage initializer or a compatible storage container"
    );
    assert!(
        rejection.message.contains("ClusterStorageContainer \"own\""),
        "{rejection:?}"
    );
    assert!(rejection.is_of_objects());
}

#[test]
fn what_is_downloaded_and_what_is_fetched_share_one_initializer() {
    let mut service = list(&[("s3://b/a", "/mnt/a"), ("oci+fetch://r/i:1", "/mnt/b")]);
    let pod = &mut service.service.spec.predictor.pod;
    pod.insert("imagePullSecrets".to_owned(), json!([{"name": "pull"}]));
    let pod = brought(&service);
    let initializers = pod["initContainers"].as_array().expect("a list");
    assert_eq!(initializers.len(), 1);
    assert_eq!(
        initializers[0]["args"],
        json!(["s3://b/a", "/mnt/a", "oci://r/i:1", "/mnt/b"])
    );
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().expect("a list").iter();
        list.map(|item| item["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let auth = "kserve-oci-fetch-docker-config";
    assert_eq!(names(&initializers[0]["volumeMounts"]), ["mnt-a", auth, "mnt-b"]);
    assert_eq!(names(&pod["volumes"]), ["mnt-a", auth, "mnt-b"]);
    assert_eq!(
        pod["containers"][0]["volumeMounts"],
        json!([
            {"name": "mnt-a", "mountPath": "/mnt/a", "readOnly": true},
            {"name": "mnt-b", "mountPath": "/mnt/b"},
        ])
    );
}
