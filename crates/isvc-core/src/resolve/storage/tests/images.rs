//! Models in images.

use super::*;
use crate::settings::OciModelMode;

/// What a URI became: an init container, a sidecar or a volume.
fn way(service: &Observed) -> &'static str {
    let pod = brought(service);
    let volume = pod["volumes"][0].clone();
    match (volume["image"].is_object(), pod["containers"][1].is_object()) {
        (true, false) => "native",
        (false, true) => "modelcar",
        (false, false) if volume["name"] == "kserve-provision-location" => "download",
        (false, false) => "fetch",
        (true, true) => panic!("two ways: {pod}"),
    }
}

#[test]
fn an_explicit_suffix_is_honoured_where_images_are_switched_off() {
    let check = |uri: &str, switched_on: bool, mode: Option<OciModelMode>, expected: &str| {
        let mut service = model(uri);
        let initializer = &mut settings(&mut service).storage_initializer;
        initializer.enable_modelcar = switched_on;
        initializer.oci_model_mode = mode;
        assert_eq!(way(&service), expected, "{uri} {switched_on} {mode:?}");
    };
    check("oci+native://r/i:1", false, None, "native");
    check("oci+fetch://r/i:1", false, None, "fetch");
    check("oci://r/i:1", false, None, "download");
    check("oci://r/i:1", true, None, "modelcar");
    check("oci://r/i:1", false, Some(OciModelMode::Native), "native");
    check("oci+fetch://r/i:1", true, Some(OciModelMode::Native), "fetch");
}

#[test]
fn scripts_quote_paths_that_the_shell_would_read() {
    let script = |path: &str| {
        let service = observed(&json!({
            "model": {},
            "storageUris": [{"uri": "oci+modelcar://r/i:1", "mountPath": path}],
        }));
        brought(&service)["containers"][1]["args"][2].clone()
    };
    assert_eq!(
        script("/mnt/models"),
        "ln -sf /proc/$$$$/root/models /mnt/models && sleep infinity"
    );
    assert_eq!(
        script("/m/a b/it's"),
        r"mkdir -p '/m/a b' && ln -sf /proc/$$$$/root/models '/m/a b/it'\''s' && sleep infinity"
    );
    let expanded = "mkdir -p /m && ln -sf /proc/$$$$/root/models '/m/$$(date)' && sleep infinity";
    assert_eq!(script("/m/$(date)"), expanded);
}

#[test]
fn a_sidecar_that_is_there_is_left_alone() {
    let sidecar = json!({"name": "modelcar", "image": "own"});
    let service = model("oci+native://r/i:1");
    let mut pod = Object::new();
    pod.insert("containers".to_owned(), json!([{"name": "kserve-container"}, sidecar]));
    let before = pod.clone();
    let component = &service.service.spec.predictor;
    bring(
        &mut pod,
        component,
        Some("oci+modelcar://r/i:1"),
        &BTreeMap::new(),
        &service,
    )
    .expect("nothing is missing");
    assert_eq!(pod, before);
}

#[test]
fn a_model_image_cannot_be_mounted_over_another_volume() {
    let server = json!({"name": "kserve-container", "volumeMounts": [{"name": "own", "mountPath": "/mnt/models"}]});
    let rejection = brought_to(&server, &model("oci+native://r/i:1")).expect_err("it is taken");
    assert_eq!(rejection.reason, "MountPathTaken");
    assert!(rejection.message.contains("volume own"), "{rejection:?}");
}

#[test]
fn ten_images_are_enough() {
    let images = |count: usize| {
        let list: Vec<Value> = (0..count)
            .map(|index| json!({"uri": "oci+native://r/i:1", "mountPath": format!("/mnt/m{index}")}))
            .collect();
        observed(&json!({"model": {}, "storageUris": list}))
    };
    assert_eq!(brought(&images(10))["volumes"].as_array().map(Vec::len), Some(10));
    assert!(refused(&images(11)).message.contains("11 models in images"));
}
