//! Response bodies, whole and broken, with every byte counted as it is pulled.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};

use super::Shared;

/// The body type of every answer.
pub(super) type FakeBody = UnsyncBoxBody<Bytes, io::Error>;

/// How the end of a body goes wrong.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// The connection breaks.
    Broken,
    /// A regular end, too early.
    Early,
    /// Nothing more, and no end.
    Silent,
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
        Ending::Broken => {
            let error = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "connection closed before message completed",
            );
            streamed(shared, first.chain(stream::iter([Err(error)])))
        }
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
