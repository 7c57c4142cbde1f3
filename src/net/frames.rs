//! Frames of node messages on a stream: read with the length judged first, written whole; and what a question is answered with.

use crate::protocol::tunnel::frame::Undecodable;
use crate::protocol::tunnel::{
    Dialect, Frame, FrameError, FrameKind, Header, MAX_HEADER_BYTES, PREFIX_BYTES, Wire, frame,
};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A peer that announces more than this is not skipped over but left: reading it would hold the stream for nothing.
const SKIP_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ReadFrameError {
    /// The stream is of no further use.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// One message could not be accepted; the next one may be. `header` is there where it could be read.
    #[error("{error}")]
    Refused { header: Option<Header>, error: FrameError },
}

/// Why there is no answer that the asker can use. "It" is the peer, which the asker names.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The stream is of no further use.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it closed the stream without an answer")]
    Ended,
    /// The peer did nothing; the connection to it is as good as before.
    #[error("it does not take this message, and says: {why}; if it is of an older version, upgrade it")]
    Refused { why: String },
    /// What the peer did is not known; the connection to it is as good as before.
    #[error("it answered with {0}; if it is of a newer version, upgrade this node")]
    Unreadable(FrameError),
}

impl AnswerError {
    /// The question came to nothing, but the peer is there: no reason to leave it.
    pub fn leaves_the_peer(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unreadable(_))
    }
}

/// Reads the one answer of a stream that carried one question.
pub async fn read_answer<B: Wire>(stream: &mut (impl AsyncRead + Unpin)) -> Result<B, AnswerError> {
    answer_in(read_frame(stream).await)
}

/// What a frame that was read says as an answer.
pub fn answer_in<B: Wire>(read: Result<Option<Frame<B>>, ReadFrameError>) -> Result<B, AnswerError> {
    match read {
        Ok(Some(Frame { body: Some(body), .. })) => Ok(body),
        Ok(Some(Frame {
            header: Header {
                kind: FrameKind::Refused { why },
                ..
            },
            ..
        })) => Err(AnswerError::Refused { why }),
        Ok(_) => Err(AnswerError::Ended),
        Err(ReadFrameError::Io(error)) => Err(AnswerError::Io(error)),
        Err(ReadFrameError::Refused { error, .. }) => Err(AnswerError::Unreadable(error)),
    }
}

/// Reads the next frame; `None` when the peer is done.
pub async fn read_frame<B: Wire>(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame<B>>, ReadFrameError> {
    match read_frame_bytes(stream, B::DIALECT, frame::max_frame_bytes::<B>()).await? {
        None => Ok(None),
        Some(bytes) => decode(&bytes).map(Some),
    }
}

pub fn decode<B: Wire>(bytes: &[u8]) -> Result<Frame<B>, ReadFrameError> {
    Frame::decode(bytes).map_err(|Undecodable { header, error }| ReadFrameError::Refused { header, error })
}

/// Reads what follows the length field, of a frame of at most `max` bytes. A longer one is skipped and refused;
/// `dialect` is named in that refusal.
pub async fn read_frame_bytes(
    stream: &mut (impl AsyncRead + Unpin),
    dialect: Dialect,
    max: usize,
) -> Result<Option<Vec<u8>>, ReadFrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    if stream.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut prefix[1..]).await?;
    let bytes = u32::from_be_bytes(prefix) as usize;
    if bytes <= max {
        let mut frame = vec![0; bytes];
        stream.read_exact(&mut frame).await?;
        return Ok(Some(frame));
    }
    let error = FrameError::TooLong { dialect, bytes, max };
    if bytes > SKIP_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, error).into());
    }
    let mut head = [0; MAX_HEADER_BYTES];
    stream.read_exact(&mut head).await?;
    let rest = (bytes - MAX_HEADER_BYTES) as u64;
    let skipped = tokio::io::copy(&mut (&mut *stream).take(rest), &mut tokio::io::sink()).await?;
    if skipped < rest {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Err(ReadFrameError::Refused {
        header: frame::header_of(&head),
        error,
    })
}

/// Says that a message with this header was not accepted; nothing, where that message was itself the end of an exchange.
pub async fn refuse<B: Wire>(
    stream: &mut (impl AsyncWrite + Unpin),
    header: Option<&Header>,
    why: &str,
) -> io::Result<()> {
    match header {
        Some(header) if header.comes_back() => Ok(()),
        _ => write_frame(stream, &Frame::<B>::refused(header.map_or(0, |header| header.id), why)).await,
    }
}

pub async fn write_frame<B: Wire>(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame<B>) -> io::Result<()> {
    let bytes = frame
        .encode()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}
