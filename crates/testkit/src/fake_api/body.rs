//! Response bodies, whole and broken, with every byte counted as it is pulled.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use serde_json::Value;

use super::Shared;

/// The body type of every answer.
pub(super) type FakeBody = UnsyncBoxBody<Bytes, io::Error>;

/// How the end of a body goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The connection breaks.
    Broken,
    /// A regular end, too early.
    Early,
    /// Nothing more, and no end.
    Silent,
}

/// An object, a list or an event as kube-apiserver writes it: what says which object it is comes before its content.
pub(super) fn json(value: &Value) -> String {
    const FIRST: [&str; 3] = ["kind", "apiVersion", "metadata"];
    let Some(fields) = value.as_object() else {
        return value.to_string();
    };
    if let (2, Some(type_), Some(object)) = (fields.len(), fields.get("type"), fields.get("object")) {
        return format!("{{\"type\":{type_},\"object\":{}}}", json(object));
    }
    let first = FIRST.iter().filter_map(|name| fields.get_key_value(*name));
    let others = fields.iter().filter(|(name, _)| !FIRST.contains(&name.as_str()));
    let members: Vec<String> = first
        .chain(others)
        .map(|(name, value)| {
            let value = match (name.as_str(), value) {
                ("items", Value::Array(items)) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")),
                _ => value.to_string(),
            };
            format!("{}:{value}", Value::from(name.as_str()))
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

/// What a client sees of a connection that breaks.
pub(super) fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "connection closed before message completed",
    )
}

/// A body from chunks.
pub(super) fn streamed<S>(shared: &Arc<Shared>, chunks: S) -> FakeBody
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    let shared = Arc::clone(shared);
    let frames = chunks.map(move |chunk| {
        chunk.map(|bytes| {
            shared.bytes_sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            Frame::data(bytes)
        })
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The whole of `bytes` in one piece.
pub(super) fn whole(shared: &Arc<Shared>, bytes: Vec<u8>) -> FakeBody {
    streamed(shared, stream::iter([Ok(Bytes::from(bytes))]))
}

/// The first half of `bytes`, then the given end.
pub(super) fn half(shared: &Arc<Shared>, bytes: Vec<u8>, ending: Ending) -> FakeBody {
    let mut first = Bytes::from(bytes);
    first.truncate(first.len() / 2);
    let first = stream::iter([Ok(first)]);
    match ending {
        Ending::Broken => streamed(shared, first.chain(stream::iter([Err(broken())]))),
        Ending::Early => streamed(shared, first),
        Ending::Silent => streamed(shared, first.chain(stream::pending())),
    }
}

/// `prefix`, then base64 filler until the body has at least `size` bytes, then `suffix`. Returns the exact length too.
pub(super) fn oversized(shared: &Arc<Shared>, prefix: String, suffix: &'static str, size: u64) -> (FakeBody, u64) {
    const CHUNK: usize = 64 * 1024;
    let chunks = size.div_ceil(CHUNK as u64);
    let length = prefix.len() as u64 + chunks * CHUNK as u64 + suffix.len() as u64;
    let filler = Bytes::from(vec![b'A'; CHUNK]);
    let middle = stream::iter(0..chunks).map(move |_| Ok(filler.clone()));
    let body = stream::iter([Ok(Bytes::from(prefix))])
        .chain(middle)
        .chain(stream::iter([Ok(Bytes::from_static(suffix.as_bytes()))]));
    (streamed(shared, body), length)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    #[test]
    fn what_says_which_object_it_is_comes_first() {
        let secret = json!({"data": {"b": 1, "a": "\u{1}\""}, "kind": "Secret", "metadata": {"name": "x"}, "type": "Opaque", "apiVersion": "v1"});
        let written = r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"},"data":{"a":"\u0001\"","b":1},"type":"Opaque"}"#;
        let list = json!({"items": [secret, 7], "kind": "List"});
        let event = json!({"object": secret, "type": "ADDED"});
        for (value, expected) in [
            (&secret, written.to_owned()),
            (&list, format!(r#"{{"kind":"List","items":[{written},7]}}"#)),
            (&event, format!(r#"{{"type":"ADDED","object":{written}}}"#)),
            (&json!({}), "{}".to_owned()),
            (&Value::Null, "null".to_owned()),
        ] {
            let text = super::json(value);
            assert_eq!(text, expected);
            assert_eq!(&serde_json::from_str::<Value>(&text).unwrap_or_default(), value);
        }
    }
}
