//! Response bodies: bounded, and wiped.

use std::pin::pin;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::BodyExt as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::budget::{Lease, MemoryShort};

/// What a body of unknown length starts with. Most Secrets fit.
const FIRST_CAPACITY: usize = 8 * 1024;

/// Why a body could not be collected.
#[derive(Debug)]
pub(super) enum BodyError<E> {
    /// It is, or announces to be, bigger than the limit.
    TooLarge,
    /// It is, or announces to be, bigger than is taken at the moment.
    MemoryShort,
    /// The connection broke in the middle.
    Broken(E),
}

impl<E> From<MemoryShort> for BodyError<E> {
    fn from(MemoryShort: MemoryShort) -> Self {
        Self::MemoryShort
    }
}

/// The whole body in one buffer that is wiped when dropped. Stops reading at the first byte beyond `limit`, or before the
/// first byte when the length is announced.
///
/// `lease` bounds the bytes of all bodies together: reading pauses while it has none to give.
pub(super) async fn collect<B>(
    response: Response<B>,
    limit: usize,
    lease: &mut Lease<'_>,
) -> Result<Zeroizing<Vec<u8>>, BodyError<B::Error>>
where
    B: Body<Data = Bytes>,
{
    // A body may know its length as well, unless a layer of the client wrapped it. Layers that change the length, such as
    // decompression, remove the header.
    let header = response.headers().get(CONTENT_LENGTH);
    let header = header.and_then(|length| length.to_str().ok()?.parse().ok());
    let mut body = pin!(response.into_body());
    let announced = header.unwrap_or(0).max(body.size_hint().lower());
    let announced = usize::try_from(announced).map_err(|_| BodyError::TooLarge)?;
    if announced > limit {
        return Err(BodyError::TooLarge);
    }
    let capacity = announced.max(FIRST_CAPACITY).min(limit);
    lease.grow(capacity).await?;
    let mut collected = Zeroizing::new(Vec::with_capacity(capacity));
    while let Some(frame) = body.frame().await {
        // Trailers are no part of the content.
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else {
            continue;
        };
        let fits = data.len() <= limit - collected.len();
        if fits {
            let needed = collected.len() + data.len();
            if needed > collected.capacity() {
                let capacity = needed.max(2 * collected.capacity()).min(limit);
                lease.grow(capacity).await?;
                grow(&mut collected, capacity);
            }
            collected.extend_from_slice(&data);
        }
        wipe(data);
        if !fits {
            return Err(BodyError::TooLarge);
        }
    }
    Ok(collected)
}

/// Grows without leaving an unwiped copy behind: `Vec` would free its old buffer as it is.
fn grow(collected: &mut Zeroizing<Vec<u8>>, capacity: usize) {
    let mut grown = Zeroizing::new(Vec::with_capacity(capacity));
    grown.extend_from_slice(collected);
    *collected = grown;
}

/// Wipes a frame if nobody shares its memory. Mostly somebody does: hyper cuts frames out of its read buffer.
pub(super) fn wipe(data: Bytes) {
    if let Ok(mut data) = data.try_into_mut() {
        data.as_mut().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::{Frame, SizeHint};
    use proptest::prelude::*;

    use super::*;
    use crate::fetch::budget::InFlight;
    use crate::options::FetchOptions;

    /// A body in pieces, with or without an announced length.
    struct Pieces {
        left: VecDeque<Vec<u8>>,
        announced: Option<u64>,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }

        fn size_hint(&self) -> SizeHint {
            self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    fn collected(pieces: &[Vec<u8>], announced: Option<u64>, limit: usize) -> Option<Vec<u8>> {
        let body = Pieces {
            left: pieces.iter().cloned().collect(),
            announced,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers needs nothing from the system");
        let in_flight = InFlight::new(&FetchOptions::default());
        match runtime.block_on(collect(Response::new(body), limit, &mut in_flight.lease())) {
            Ok(collected) => {
                assert!(collected.capacity() <= limit.max(1));
                Some(collected.to_vec())
            }
            Err(BodyError::TooLarge) => None,
            Err(BodyError::MemoryShort) => panic!("memory is not short"),
            Err(BodyError::Broken(never)) => match never {},
        }
    }

    proptest! {
        #[test]
        fn pieces_come_back_whole_or_not_at_all(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..10),
            announce: bool,
            limit in 0_usize..30_000,
        ) {
            let whole = pieces.concat();
            let announced = announce.then_some(whole.len() as u64);
            let expected = (whole.len() <= limit).then_some(whole);
            prop_assert_eq!(collected(&pieces, announced, limit), expected);
        }
    }

    #[test]
    fn an_announced_length_beyond_the_limit_is_refused_unread() {
        assert_eq!(collected(&[], Some(u64::MAX), 1000), None);
        assert_eq!(collected(&[], Some(1001), 1000), None);
        assert_eq!(collected(&[], Some(1000), 1000), Some(vec![]));
    }
}
