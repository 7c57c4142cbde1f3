//! What nodes say to each other: frames on a stream, and the messages of the seven dialects.

use super::{is_a_sentence, splits};
use postern::net::frames::{ReadFrameError, read_frame};
use postern::protocol::tunnel::frame::{Undecodable, dialect_of, header_of, max_frame_bytes};
use postern::protocol::tunnel::{
    AuthToNode, DbToAuth, DbToProxy, Dialect, Frame, FrameKind, JoinAnswer, JoinToAuth, PREFIX_BYTES, ProxyToAuth,
    ProxyToDb, Wire,
};
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};

/// The bytes are what follows the length field. Each dialect reads them or says why not; what it reads can be written, no longer
/// than it came, and is then read as the same.
pub fn messages(bytes: &[u8]) {
    let understood = [
        message::<JoinToAuth>(bytes),
        message::<JoinAnswer>(bytes),
        message::<DbToAuth>(bytes),
        message::<ProxyToAuth>(bytes),
        message::<AuthToNode>(bytes),
        message::<ProxyToDb>(bytes),
        message::<DbToProxy>(bytes),
    ];
    assert!(
        understood.iter().filter(|understood| **understood).count() <= 1,
        "one frame in two dialects"
    );
}

fn message<B: Wire + PartialEq>(bytes: &[u8]) -> bool {
    let frame = match Frame::<B>::decode(bytes) {
        Ok(frame) => frame,
        Err(Undecodable { header, error }) => {
            is_a_sentence(&error);
            if let Some(header) = header {
                assert_eq!(header_of(bytes), Some(header));
            }
            return false;
        }
    };
    assert_eq!(dialect_of(bytes), Some(B::DIALECT as u8));
    assert_eq!(header_of(bytes).as_ref(), Some(&frame.header));
    assert_eq!(
        frame.body.is_none(),
        matches!(frame.header.kind, FrameKind::Refused { .. })
    );
    let written = match frame.encode() {
        Ok(written) => written,
        Err(error) => {
            assert!(bytes.len() > max_frame_bytes::<B>(), "{error}");
            return true;
        }
    };
    assert!(written.len() - PREFIX_BYTES <= bytes.len(), "it grew");
    assert_eq!(Frame::<B>::decode(&written[PREFIX_BYTES..]).as_ref(), Ok(&frame));
    true
}

/// The bytes are a stream of frames. However it is cut, the same frames are read from it, and it ends in the same way.
pub fn frames(bytes: &[u8]) {
    stream::<AuthToNode>(bytes);
    stream::<ProxyToDb>(bytes);
    stream::<JoinToAuth>(bytes);
}

fn stream<B: Wire + PartialEq>(bytes: &[u8]) {
    let whole = read_all::<B>(&[bytes]);
    for split in splits(bytes) {
        assert_eq!(read_all::<B>(&split), whole);
    }
}

/// Every frame or the refusal of it, and how the stream ended.
type Read<B> = (Vec<Result<Frame<B>, String>>, Option<io::ErrorKind>);

fn read_all<B: Wire>(chunks: &[&[u8]]) -> Read<B> {
    let mut stream = Chunks(chunks.iter().copied().collect());
    let mut frames = Vec::new();
    loop {
        match at_once(read_frame::<B>(&mut stream)) {
            Ok(None) => return (frames, None),
            Ok(Some(frame)) => frames.push(Ok(frame)),
            Err(ReadFrameError::Io(error)) => return (frames, Some(error.kind())),
            Err(ReadFrameError::Refused { header, error }) => {
                is_a_sentence(&error);
                let text = error.to_string();
                assert!(!text.contains("panicked"), "{text}");
                frames.push(Err(format!("{header:?} {text}")));
            }
        }
        assert!(frames.len() <= 1 + chunks.iter().map(|chunk| chunk.len()).sum::<usize>() / PREFIX_BYTES);
    }
}

struct Chunks<'a>(VecDeque<&'a [u8]>);

impl AsyncRead for Chunks<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(chunk) = self.0.front_mut() {
            let (some, rest) = chunk.split_at(chunk.len().min(into.remaining()));
            into.put_slice(some);
            *chunk = rest;
            if rest.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The chunks are always there, so nothing waits.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a reader waits although the bytes are there"),
    }
}

/// The seven that `messages` tries are all that there are.
const _: () = assert!(Dialect::DbToProxy as u8 == 7);
