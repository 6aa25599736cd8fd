use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::want::Want;

fn asked() -> SecretRef {
    SecretRef::new("ns", "name").expect("valid")
}

fn wire() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": "ns", "name": "name", "uid": "u-1", "resourceVersion": "42",
            "annotations": {LAST_APPLIED: "{\"data\":\"planted\"}", "b": "2", "a": "1 \"quoted\""},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:data": {}}}],
            "labels": {"l": "v"},
        },
        "immutable": true,
        "type": "kubernetes.io/tls",
        "data": {"tls.key": "c2VjcmV0", "empty": "", "null": null},
    })
}

fn decode(wire: &Value) -> Result<SecretSnapshot, &'static str> {
    secret(wire.to_string().as_bytes(), &asked(), &Fields::default()).map(SnapshotBuilder::build)
}

#[test]
fn a_whole_secret() {
    let snapshot = decode(&wire()).expect("a valid Secret");
    assert_eq!(snapshot.uid(), "u-1");
    assert_eq!(snapshot.resource_version(), ResourceVersion::new(42));
    assert_eq!(snapshot.type_(), "kubernetes.io/tls");
    assert_eq!(
        snapshot.annotations().collect::<Vec<_>>(),
        [("a", "1 \"quoted\""), ("b", "2")]
    );
    assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["empty", "null", "tls.key"]);
    let text = |key| snapshot.bytes(key).and_then(SecretBytes::as_str);
    assert_eq!(
        (text("tls.key"), text("empty"), text("null")),
        (Some("secret"), Some(""), Some(""))
    );
}

#[test]
fn data_and_annotations_may_be_missing_or_null() {
    for value in [None, Some(Value::Null), Some(json!({}))] {
        let mut wire = wire();
        if let Some(value) = value {
            wire["data"] = value.clone();
            wire["metadata"]["annotations"] = value;
        } else {
            let object = wire.as_object_mut().expect("an object");
            object.remove("data");
            let metadata = object["metadata"].as_object_mut().expect("an object");
            metadata.remove("annotations");
        }
        let snapshot = decode(&wire).expect("valid");
        assert_eq!((snapshot.keys().len(), snapshot.annotations().len()), (0, 0));
    }
}

#[test]
fn what_is_not_the_secret_asked_for_is_refused_without_quoting_it() {
    let planted = "planted-7f3a";
    let spoilt: [(&str, Value); 13] = [
        ("/kind", json!("ConfigMap")),
        ("/kind", json!("Status")),
        ("/apiVersion", json!("v2")),
        ("/metadata/name", json!(planted)),
        ("/metadata/namespace", json!("other")),
        ("/metadata/uid", json!("")),
        ("/metadata/resourceVersion", json!("")),
        ("/metadata/resourceVersion", json!("4x")),
        ("/metadata/resourceVersion", json!(4)),
        ("/data/tls.key", json!(planted)),
        ("/data/tls.key", json!([planted])),
        ("/data", json!(planted)),
        ("/metadata/annotations/a", json!({"x": planted})),
    ];
    for (pointer, value) in spoilt {
        let mut wire = wire();
        *wire.pointer_mut(pointer).expect(pointer) = value;
        let problem = decode(&wire).expect_err(pointer);
        assert!(!problem.contains(planted), "{problem}");
    }
}

#[test]
fn truncated_anywhere_is_refused() {
    let whole = wire().to_string();
    for end in 0..whole.len() {
        let problem = secret(&whole.as_bytes()[..end], &asked(), &Fields::default())
            .map(|_| ())
            .expect_err("not whole");
        assert_eq!(problem, "it ends too early", "at {end}");
    }
    for body in [
        format!("{whole}{whole}").as_bytes(),
        b"\xff\xfe",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
    ] {
        assert!(secret(body, &asked(), &Fields::default()).is_err());
    }
}

#[test]
fn only_the_api_servers_own_words_mean_absence() {
    assert!(is_not_found_status(
        br#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}"#
    ));
    for body in [
        "",
        "404 page not found",
        "{}",
        r#"{"kind":"Status","reason":"Forbidden"}"#,
        r#"{"kind":"Other","reason":"NotFound"}"#,
    ] {
        assert!(!is_not_found_status(body.as_bytes()), "{body}");
    }
}

#[test]
fn counts_what_is_there_and_what_remains() {
    let list = |metadata: Value, items: Value| {
        count(
            json!({"kind": "PartialObjectMetadataList", "metadata": metadata, "items": items})
                .to_string()
                .as_bytes(),
        )
    };
    assert_eq!(list(json!({}), json!([])), Ok(0));
    assert_eq!(list(json!({}), Value::Null), Ok(0));
    assert_eq!(list(json!({"continue": ""}), json!([{"metadata": {}}])), Ok(1));
    assert_eq!(
        list(json!({"continue": "x", "remainingItemCount": 7999}), json!([{}])),
        Ok(8000)
    );
    assert!(list(json!({"continue": "x"}), json!([{}])).is_err());
    assert!(count(br#"{"kind":"Status","metadata":{}}"#).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
        let mut body = if magic { protobuf::MAGIC.to_vec() } else { Vec::new() };
        body.extend(bytes);
        prop_assert!(secret(&body, &asked(), &Fields::default()).is_err());
        prop_assert!(metadata(&body, &asked()).is_err());
        prop_assert!(!is_not_found_status(&body));
        prop_assert!(count(&body).is_err());
        for format in [Format::Json, Format::Protobuf] {
            for piece in [event::Piece::Whole(&body), event::Piece::Beginning(&body)] {
                prop_assert!(event::event(format, piece, &Fields::default()).is_err());
                prop_assert!(event::item(format, piece, &Fields::default()).is_err());
            }
        }
    }
}

#[test]
fn only_wanted_fields_are_decoded() {
    let mut wire = wire();
    // Not base64, and no text: whoever decodes these fails.
    wire["data"]["unwanted"] = json!("%");
    wire["metadata"]["annotations"]["unwanted"] = json!(7);
    let body = wire.to_string();
    let want = Want::default()
        .keys(["tls.key", "missing"])
        .annotations(["b", LAST_APPLIED]);
    let snapshot = secret(body.as_bytes(), &asked(), want.fields()).map(SnapshotBuilder::build);
    let snapshot = snapshot.expect("what is wrong is not wanted");
    assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["tls.key"]);
    assert_eq!(snapshot.annotations().collect::<Vec<_>>(), [("b", "2")]);
    assert!(decode(&wire).is_err());
}

#[test]
fn metadata_are_checked_like_the_secret() {
    let mut wire = wire();
    wire["kind"] = json!("PartialObjectMetadata");
    wire["apiVersion"] = json!("meta.k8s.io/v1");
    let expected = Metadata {
        uid: "u-1".into(),
        version: ResourceVersion::new(42),
    };
    assert_eq!(metadata(wire.to_string().as_bytes(), &asked()), Ok(expected));
    for (pointer, value) in [
        ("/kind", json!("Secret")),
        ("/apiVersion", json!("v1")),
        ("/metadata/name", json!("other")),
        ("/metadata/uid", json!("")),
        ("/metadata/resourceVersion", json!("x")),
    ] {
        let mut wire = wire.clone();
        *wire.pointer_mut(pointer).expect(pointer) = value;
        assert!(metadata(wire.to_string().as_bytes(), &asked()).is_err(), "{pointer}");
    }
}

#[test]
fn the_first_bytes_tell_the_format() {
    for (body, format) in [
        (&b""[..], Format::Json),
        (b"{}", Format::Json),
        (b"k8s", Format::Json),
        (b"k8s ", Format::Json),
        (b"k8s\0", Format::Protobuf),
        (b"k8s\0x", Format::Protobuf),
    ] {
        assert_eq!(Format::of(body), format, "{body:?}");
    }
}
