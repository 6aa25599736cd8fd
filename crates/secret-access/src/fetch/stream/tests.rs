use proptest::prelude::*;
use serde_json::json;

use super::super::decode::protobuf::tests::{Writer, secret_message};
use super::*;
use crate::secret_ref::SecretRef;

/// Cuts `body`, which arrives in chunks of these sizes over and over; tells what was beside the pieces too.
fn cut<C: Cut>(mut cutter: C, body: &[u8], sizes: &[usize]) -> Result<(Vec<Cutting>, C), &'static str> {
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().copied().cycle();
    let mut left = body;
    while !left.is_empty() {
        let size = sizes.next().unwrap_or(left.len()).clamp(1, left.len());
        let (chunk, rest) = left.split_at(size);
        left = rest;
        let mut chunk = chunk;
        while let Some(piece) = cutter.cut(&mut chunk)? {
            pieces.push(match piece {
                Piece::Whole(bytes) => Cutting::Whole(bytes.to_vec()),
                Piece::Beginning(bytes) => Cutting::Beginning(bytes.to_vec()),
            });
        }
        assert!(chunk.is_empty(), "a cutter that has no piece takes all there is");
    }
    Ok((pieces, cutter))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cutting {
    Whole(Vec<u8>),
    Beginning(Vec<u8>),
}

/// What comes of a piece under a limit.
fn limited(piece: &[u8], limit: usize) -> Cutting {
    match piece.get(..limit) {
        Some(beginning) if piece.len() > limit => Cutting::Beginning(beginning.to_vec()),
        _ => Cutting::Whole(piece.to_vec()),
    }
}

fn frames(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for piece in pieces {
        body.extend(u32::try_from(piece.len()).expect("it is small").to_be_bytes());
        body.extend(piece);
    }
    body
}

fn protobuf_list(items: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Writer::default().bytes(1, &Writer::default().text(1, "").text(2, "77").text(3, "token").0);
    for item in items {
        list = list.bytes(2, item);
    }
    // Fields that do not exist yet.
    list.number(9, 1).bytes(10, b"new").enveloped("v1", "SecretList")
}

/// Objects of JSON with what may confuse somebody who counts brackets.
fn item() -> impl Strategy<Value = String> {
    let text = r#"[a-z"\\\[\]{},: 	é]{0,12}"#;
    (prop::collection::vec((text, text), 0..4), any::<bool>()).prop_map(|(members, nested)| {
        let mut object = serde_json::Map::new();
        for (name, value) in members {
            let value = json!(value);
            object.insert(name, if nested { json!([{"items": [value]}]) } else { value });
        }
        serde_json::Value::Object(object).to_string()
    })
}

proptest! {
    #[test]
    fn lines_come_back_however_they_arrive(
        lines in prop::collection::vec("[a-z ]{0,20}[a-z]", 0..12),
        sizes in prop::collection::vec(1_usize..30, 1..5),
        limit in 1_usize..25,
    ) {
        let body: String = lines.iter().fold(String::new(), |body, line| body + line + "\n");
        let (pieces, cutter) = cut(Lines::new(limit), body.as_bytes(), &sizes).expect("lines never fail");
        let expected: Vec<Cutting> = lines.iter().map(|line| limited(line.as_bytes(), limit)).collect();
        prop_assert_eq!(pieces, expected);
        prop_assert!(cutter.is_between_pieces());
        let (_, cutter) = cut(Lines::new(limit), format!("{body}x").as_bytes(), &sizes).expect("lines never fail");
        prop_assert!(!cutter.is_between_pieces());
    }

    #[test]
    fn frames_come_back_however_they_arrive(
        frames_ in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..12),
        sizes in prop::collection::vec(1_usize..30, 1..5),
        limit in 1_usize..25,
    ) {
        let body = frames(&frames_);
        let (pieces, cutter) = cut(Frames::new(limit), &body, &sizes).expect("frames never fail");
        let expected: Vec<Cutting> = frames_.iter().map(|frame| limited(frame, limit)).collect();
        prop_assert_eq!(pieces, expected);
        prop_assert!(cutter.is_between_pieces());
        if let Some(last) = body.len().checked_sub(1).filter(|_| frames_.last().is_some_and(|last| !last.is_empty())) {
            let (_, cutter) = cut(Frames::new(limit), &body[..last], &sizes).expect("frames never fail");
            prop_assert!(!cutter.is_between_pieces());
        }
    }

    #[test]
    fn items_of_json_come_back_however_they_arrive(
        items in prop::collection::vec(item(), 0..8),
        sizes in prop::collection::vec(1_usize..40, 1..5),
        limit in 20_usize..60,
        first: bool,
        pretty: bool,
    ) {
        let about = r#""kind":"SecretList","apiVersion":"v1","metadata":{"resourceVersion":"77","continue":"to\"ken","items":[1]}"#;
        let separator = if pretty { " ,\n " } else { "," };
        let list = format!("\"items\":[{}]", items.join(separator));
        let body = if first { format!("{{{list},{about}}}") } else { format!("{{{about},{list}}}\n") };
        let (pieces, cutter) = cut(JsonItems::new(limit), body.as_bytes(), &sizes).expect("a list");
        let expected: Vec<Cutting> = items.iter().map(|item| limited(item.as_bytes(), limit)).collect();
        prop_assert_eq!(pieces, expected);
        prop_assert!(cutter.is_between_pieces());
        let rest = json::list(cutter.rest()).expect("a list without items");
        prop_assert_eq!((rest.kind.as_ref(), rest.resource_version.as_ref(), rest.continue_.as_ref()), ("SecretList", "77", "to\"ken"));
        prop_assert_eq!(rest.items, 0);
    }

    #[test]
    fn items_of_protobuf_come_back_however_they_arrive(
        items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        sizes in prop::collection::vec(1_usize..400, 1..5),
        limit in 10_usize..400,
    ) {
        let body = protobuf_list(&items);
        let (pieces, cutter) = cut(ProtobufItems::new(limit), &body, &sizes).expect("a list");
        let expected: Vec<Cutting> = items.iter().map(|item| limited(item, limit)).collect();
        prop_assert_eq!(pieces, expected);
        prop_assert!(cutter.is_between_pieces());
        let rest = protobuf::list_parts(cutter.parts()).expect("a list without items");
        prop_assert_eq!((rest.kind.as_ref(), rest.resource_version.as_ref(), rest.continue_.as_ref()), ("SecretList", "77", "token"));
        // Without the two empty fields at the end of the envelope it is as complete; without a byte more it is not.
        for end in 0..body.len() - 4 {
            let whole = cut(ProtobufItems::new(limit), &body[..end], &sizes).is_ok_and(|(_, cutter)| cutter.is_between_pieces());
            prop_assert!(!whole, "{} of {}", end, body.len());
        }
    }

    #[test]
    fn garbage_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in r#"[\[\]{}",:a-e\\ ]{0,60}"#,
        sizes in prop::collection::vec(1_usize..40, 1..5),
    ) {
        let marked = [&b"k8s\0"[..], &bytes].concat();
        for body in [&bytes[..], &marked, text.as_bytes()] {
            let _ = cut(Lines::new(50), body, &sizes);
            let _ = cut(Frames::new(50), body, &sizes);
            let _ = cut(JsonItems::new(50), body, &sizes);
            let _ = cut(ProtobufItems::new(50), body, &sizes);
        }
    }
}

#[test]
fn nobody_waits_for_the_end_of_a_piece_without_end() {
    let endless = vec![b'a'; 1000];
    assert!(cut(Lines::new(15), &endless, &[100]).is_err());
    assert!(cut(Lines::new(16), &endless, &[100]).is_ok());
    assert!(cut(Frames::new(15), &endless, &[100]).is_err());
    let item = [&b"{\"items\":[{\""[..], &endless].concat();
    assert!(cut(JsonItems::new(15), &item, &[100]).is_err());
    let item = [&b"k8s\0\x12\xff\xff\x7f\x12\xff\xff\x3f"[..], &endless].concat();
    assert!(cut(ProtobufItems::new(15), &item, &[100]).is_err());
}

#[test]
fn what_is_no_list_has_no_items() {
    for body in [
        r#"{"items":["text"]}"#,
        r#"{"items":[7]}"#,
        r#"{"items":[null]}"#,
        "]",
        "{}}",
    ] {
        assert!(cut(JsonItems::new(100), body.as_bytes(), &[7]).is_err(), "{body}");
    }
    for body in ["{", r#"{"items":["#, r#"{"items":[{}"#, r#"{"items":[{"a":"}]}"#] {
        let (_, cutter) = cut(JsonItems::new(100), body.as_bytes(), &[7]).expect("it may go on");
        assert!(!cutter.is_between_pieces(), "{body}");
    }
    let long = format!(r#"{{"kind":"{}"}}"#, "x".repeat(100_000));
    assert!(cut(JsonItems::new(100), long.as_bytes(), &[70]).is_err());
    // A list twice, an item longer than its list, a group.
    let list = Writer::default().bytes(2, b"item");
    let twice = Writer::default().bytes(2, &list.0).bytes(2, &list.0);
    let beyond = Writer::default().bytes(2, &[0x12, 100, 1]).bytes(3, &[0; 200]);
    for message in [twice.0, beyond.0, vec![0x0b, 0]] {
        let body = [&b"k8s\0"[..], &message].concat();
        assert!(cut(ProtobufItems::new(100), &body, &[7]).is_err(), "{body:?}");
    }
}

fn told(format: Format, list: bool, limit: usize, body: Vec<u8>) -> (Vec<Told>, Result<(), Failure>) {
    let cutter = match (format, list) {
        (Format::Json, false) => Cutter::Lines(Lines::new(limit)),
        (Format::Protobuf, false) => Cutter::Frames(Frames::new(limit)),
        (Format::Json, true) => Cutter::JsonItems(JsonItems::new(limit)),
        (Format::Protobuf, true) => Cutter::ProtobufItems(ProtobufItems::new(limit)),
    };
    let mut stream = Stream {
        body: Body::from(body),
        chunk: Bytes::new(),
        read: 0,
        cutter,
        format,
        list,
        fields: Fields::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .expect("a runtime without drivers needs nothing from the system")
        .block_on(async {
            let mut told = Vec::new();
            loop {
                match stream.next().await {
                    Ok(event @ Told::Event(_)) => told.push(event),
                    Ok(end) => {
                        told.push(end);
                        return (told, Ok(()));
                    }
                    Err(failure) => return (told, Err(failure)),
                }
            }
        })
}

fn json_secret(name: &str, version: &str) -> serde_json::Value {
    json!({
        "kind": "Secret", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "ns", "uid": "u-1", "resourceVersion": version},
        "data": {"key": "c2VjcmV0"},
    })
}

/// The same story as lines of JSON and as frames of protobuf.
fn story() -> [(Format, Vec<u8>); 2] {
    let secret = |name, version| secret_message(name, version).enveloped("v1", "Secret");
    let bad = {
        let mut message = secret_message("bad", "12");
        message = message.number(2, 7);
        message.enveloped("v1", "Secret")
    };
    let bookmark = Writer::default().bytes(
        1,
        &Writer::default()
            .text(6, "14")
            .entry(12, "k8s.io/initial-events-end", b"true")
            .0,
    );
    let status = Writer::default()
        .text(4, "Expired")
        .bytes(5, &Writer::default().number(8, 3).0)
        .number(6, 410)
        .enveloped("v1", "Status");
    let event = |type_: &str, raw: &[u8]| {
        Writer::default()
            .text(1, type_)
            .bytes(2, &Writer::default().bytes(1, raw).0)
            .0
    };
    let protobuf = [
        event("ADDED", &secret("a", "10")),
        event("MODIFIED", &secret("a", "11")),
        event("MODIFIED", &bad),
        event("DELETED", &secret("a", "13")),
        event("BOOKMARK", &bookmark.enveloped("v1", "Secret")),
        event("ERROR", &status),
    ];
    let mut bad = json_secret("bad", "12");
    bad["data"]["key"] = json!("%");
    let json = [
        json!({"type": "ADDED", "object": json_secret("a", "10")}),
        json!({"type": "MODIFIED", "object": json_secret("a", "11")}),
        json!({"type": "MODIFIED", "object": bad}),
        json!({"type": "DELETED", "object": json_secret("a", "13")}),
        json!({"type": "BOOKMARK", "object": {"kind": "Secret", "apiVersion": "v1",
               "metadata": {"resourceVersion": "14", "annotations": {"k8s.io/initial-events-end": "true"}}}}),
        json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired",
               "details": {"retryAfterSeconds": 3}}}),
    ];
    let json: String = json
        .iter()
        .fold(String::new(), |body, event| body + &event.to_string() + "\n");
    [(Format::Json, json.into_bytes()), (Format::Protobuf, frames(&protobuf))]
}

/// What an event says, in words.
fn words(told: &Told) -> String {
    match told {
        Told::Event(Event::Present(_, metadata)) => format!("present {}", metadata.version),
        Told::Event(Event::Gone(secret, metadata)) => format!("gone {secret} {}", metadata.version),
        Told::Event(Event::Bookmark {
            version,
            initial_events_end,
        }) => format!("bookmark {version} {initial_events_end}"),
        Told::Event(Event::Ends(ended)) => format!("ends {} {} {:?}", ended.code, ended.expired, ended.retry_after),
        Told::Event(Event::Unusable { secret, version, .. }) => format!("unusable {secret} {version:?}"),
        Told::Listed(listed) => format!("listed {} {:?}", listed.version, listed.continue_),
        Told::Over => "over".to_owned(),
    }
}

#[test]
fn a_watch_tells_the_same_in_both_formats() {
    for (format, body) in story() {
        let (told, end) = told(format, false, 10_000, body);
        assert_eq!(
            told.iter().map(words).collect::<Vec<_>>(),
            [
                "present 10",
                "present 11",
                "unusable ns/bad Some(ResourceVersion(12))",
                "gone ns/a 13",
                "bookmark 14 true",
                "ends 410 true Some(3s)",
                "over"
            ],
            "{format:?}"
        );
        assert_eq!(end, Ok(()));
    }
}

#[test]
fn a_watch_cut_anywhere_tells_a_beginning_of_it_and_no_more() {
    for (format, body) in story() {
        let (whole, _) = told(format, false, 10_000, body.clone());
        let whole: Vec<String> = whole.iter().map(words).collect();
        for end in 0..body.len() {
            let (told, _) = told(format, false, 10_000, body[..end].to_vec());
            let told: Vec<String> = told.iter().map(words).filter(|told| told != "over").collect();
            assert!(whole.starts_with(&told), "{format:?} {end}: {told:?}");
        }
    }
}

#[test]
fn an_object_too_big_is_told_by_name() {
    let secret = SecretRef::new("ns", "big").expect("valid");
    let mut object = json_secret("big", "9");
    object["data"]["key"] = json!("A".repeat(4000));
    let big = secret_message("big", "9").entry(2, "z", &[0; 4000]);
    let event = Writer::default()
        .text(1, "ADDED")
        .bytes(2, &Writer::default().bytes(1, &big.clone().enveloped("v1", "Secret")).0);
    // In the order of a Go program's fields.
    let object = format!(
        r#"{{"metadata":{},"data":{},"kind":"Secret","apiVersion":"v1"}}"#,
        object["metadata"], object["data"]
    );
    for (format, list, body) in [
        (
            Format::Json,
            false,
            format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n").into_bytes(),
        ),
        (
            Format::Json,
            true,
            format!(r#"{{"kind":"SecretList","metadata":{{"resourceVersion":"10"}},"items":[{object}]}}"#).into_bytes(),
        ),
        (Format::Protobuf, false, frames(&[event.0])),
        (Format::Protobuf, true, protobuf_list(&[big.0])),
    ] {
        let (told, end) = told(format, list, 1000, body);
        assert!(
            matches!(&told[..], [Told::Event(Event::Unusable { secret: named, .. }), _] if *named == secret),
            "{format:?} {list}: {told:?}"
        );
        assert_eq!(end, Ok(()));
    }
}

#[test]
fn a_list_ends_with_its_version_and_the_way_to_the_rest() {
    let item = |name| {
        let mut item = json_secret(name, "9");
        let object = item.as_object_mut().expect("an object");
        object.remove("kind");
        object.remove("apiVersion");
        item
    };
    let list = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "77", "continue": "token"},
                      "items": [item("a"), item("b")]});
    let items = [secret_message("a", "9").0, secret_message("b", "9").0];
    for (format, body) in [
        (Format::Json, list.to_string().into_bytes()),
        (Format::Protobuf, protobuf_list(&items)),
    ] {
        let (events, end) = told(format, true, 10_000, body.clone());
        assert_eq!(
            events.iter().map(words).collect::<Vec<_>>(),
            ["present 9", "present 9", "listed 77 Some(\"token\")"],
            "{format:?}"
        );
        assert_eq!(end, Ok(()));
        let (_, end) = told(format, true, 10_000, body[..body.len() - 10].to_vec());
        assert_eq!(end, Err(Failure::Malformed(TOO_SHORT)));
    }
    let other = list.to_string().replace("SecretList", "OtherList");
    assert!(told(Format::Json, true, 10_000, other.into_bytes()).1.is_err());
}
