//! PostgreSQL's answers in its stream, for the audit log: what was done, how many rows, which error. Rows and COPY data are
//! counted and never looked at; nor is the text of an error, which quotes what people sent.

use super::frames::Piece;

/// As much of an answer's body as is read: a command tag has at most 32 letters and two numbers, and the first fields of an
/// ErrorResponse are its severities and its SQLSTATE (`send_message_to_frontend` in src/backend/utils/error/elog.c).
const BODY_BYTES: usize = 128;
/// The longest command tag is `CREATE TEXT SEARCH CONFIGURATION` (src/include/tcop/cmdtaglist.h).
const WORD_BYTES: usize = 32;

/// A short word of PostgreSQL's: a command tag without its numbers, an SQLSTATE, a severity. Upper-case letters, digits, spaces
/// and underscores only, so that it needs no escaping anywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word {
    bytes: [u8; WORD_BYTES],
    length: u8,
}

impl Word {
    /// `None` for what is no such word; what is too long is cut.
    pub fn new(text: &[u8]) -> Option<Self> {
        let text = text.get(..WORD_BYTES).unwrap_or(text);
        let plain = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b' ' | b'_');
        if text.is_empty() || !text.iter().all(plain) {
            return None;
        }
        let mut bytes = [0; WORD_BYTES];
        bytes[..text.len()].copy_from_slice(text);
        // At most WORD_BYTES.
        let length = text.len() as u8;
        Some(Self { bytes, length })
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    /// From the client.
    In,
    /// To the client.
    Out,
    Both,
}

/// One message that answers something, or a part of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    ParseComplete,
    BindComplete,
    CloseComplete,
    /// RowDescription or NoData; a Describe is answered, and the rows of a Query may begin.
    Described,
    /// CommandComplete.
    Completed {
        tag: Option<Word>,
        /// Of the tag.
        rows: Option<u64>,
    },
    EmptyQuery,
    /// PortalSuspended, after so many rows.
    Suspended {
        rows: u64,
    },
    FunctionResult,
    Failed {
        severity: Option<Word>,
        sqlstate: Option<Word>,
    },
    Copies(CopyDirection),
    /// ReadyForQuery with this status.
    Ready(u8),
}

impl Answer {
    /// After it PostgreSQL says nothing more.
    pub fn is_last_words(&self) -> bool {
        let last = |severity: &Word| matches!(severity.as_str(), "FATAL" | "PANIC");
        matches!(self, Self::Failed { severity: Some(severity), .. } if last(severity))
    }
}

/// Reads the answers of one stream, from pieces that may be cut anywhere.
#[derive(Debug, Clone)]
pub struct AnswerReader {
    body: [u8; BODY_BYTES],
    filled: usize,
    /// DataRows since the last answer.
    rows: u64,
    copied: u64,
}

impl Default for AnswerReader {
    fn default() -> Self {
        Self {
            body: [0; BODY_BYTES],
            filled: 0,
            rows: 0,
            copied: 0,
        }
    }
}

impl AnswerReader {
    /// Bytes of COPY data since they were last asked for.
    pub fn take_copied(&mut self) -> u64 {
        std::mem::take(&mut self.copied)
    }

    /// Takes the next piece of the stream. An answer comes with the last piece of its message.
    pub fn read(&mut self, piece: &Piece<'_>) -> Option<Answer> {
        match piece.message_type {
            b'D' => {
                self.rows += u64::from(piece.last());
                None
            }
            b'd' => {
                self.copied += piece.body.len() as u64;
                None
            }
            b'C' | b'E' | b'Z' => {
                let answer = match self.whole(piece) {
                    Body::Unfinished => return None,
                    Body::Here => answer(piece.message_type, piece.body),
                    Body::Gathered(length) => answer(piece.message_type, &self.body[..length]),
                };
                self.rows = 0;
                Some(answer)
            }
            other if piece.last() => self.by_type(other),
            _ => None,
        }
    }

    fn by_type(&mut self, message_type: u8) -> Option<Answer> {
        Some(match message_type {
            b'1' => Answer::ParseComplete,
            b'2' => Answer::BindComplete,
            b'3' => Answer::CloseComplete,
            b'T' | b'n' => Answer::Described,
            b'I' => Answer::EmptyQuery,
            b's' => Answer::Suspended {
                rows: std::mem::take(&mut self.rows),
            },
            b'V' => Answer::FunctionResult,
            b'G' => Answer::Copies(CopyDirection::In),
            b'H' => Answer::Copies(CopyDirection::Out),
            b'W' => Answer::Copies(CopyDirection::Both),
            _ => return None,
        })
    }

    fn whole(&mut self, piece: &Piece<'_>) -> Body {
        if piece.first {
            if piece.last() {
                return Body::Here;
            }
            self.filled = 0;
        }
        let take = piece.body.len().min(BODY_BYTES - self.filled);
        self.body[self.filled..self.filled + take].copy_from_slice(&piece.body[..take]);
        self.filled += take;
        match piece.last() {
            true => Body::Gathered(self.filled),
            false => Body::Unfinished,
        }
    }
}

enum Body {
    Unfinished,
    Here,
    /// So many bytes of it.
    Gathered(usize),
}

fn answer(message_type: u8, body: &[u8]) -> Answer {
    let body = body.get(..BODY_BYTES).unwrap_or(body);
    match message_type {
        b'Z' => Answer::Ready(body.first().copied().unwrap_or_default()),
        b'C' => command_complete(body),
        _ => error_response(body),
    }
}

/// `INSERT 0 5`: words, then numbers, the last of which counts rows.
fn command_complete(body: &[u8]) -> Answer {
    let text = body.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_number = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    let mut words = text;
    let mut rows = None;
    while let Some(space) = words.iter().rposition(|byte| *byte == b' ') {
        let last = &words[space + 1..];
        if !is_number(last) {
            break;
        }
        rows = rows.or_else(|| str::from_utf8(last).ok()?.parse().ok());
        words = &words[..space];
    }
    Answer::Completed {
        tag: Word::new(words),
        rows,
    }
}

fn error_response(body: &[u8]) -> Answer {
    let (mut translated, mut severity, mut sqlstate) = (None, None, None);
    // A field that was cut is none.
    let whole = body.iter().rposition(|byte| *byte == 0).unwrap_or_default();
    for field in body[..whole].split(|byte| *byte == 0) {
        match field.split_first() {
            Some((b'S', text)) => translated = translated.or(Word::new(text)),
            Some((b'V', text)) => severity = severity.or(Word::new(text)),
            // Five characters; a server that sends something else has sent none.
            Some((b'C', text)) if text.len() == 5 && !text.iter().any(|byte| matches!(byte, b' ' | b'_')) => {
                sqlstate = sqlstate.or(Word::new(text));
            }
            // What follows is the message, which is not looked at.
            Some((b'M', _)) | None => break,
            Some(_) => {}
        }
    }
    Answer::Failed {
        severity: severity.or(translated),
        sqlstate,
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{Direction, FrameWalker};
    use super::super::statement_tests::frame;
    use super::*;

    /// The answers in a stream that comes in pieces of `size` bytes.
    fn answers(stream: &[u8], size: usize) -> Vec<Answer> {
        let (mut walker, mut reader) = (FrameWalker::new(Direction::Backend), AnswerReader::default());
        let mut answers = Vec::new();
        for chunk in stream.chunks(size) {
            walker
                .walk(chunk, |piece| answers.extend(reader.read(&piece)))
                .expect("sound");
        }
        answers
    }

    fn completed(tag: &str) -> (String, Option<u64>) {
        match command_complete(format!("{tag}\0").as_bytes()) {
            Answer::Completed { tag, rows } => (tag.expect("a tag").as_str().to_owned(), rows),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_tag_is_its_words_and_the_last_of_its_numbers() {
        assert_eq!(completed("SELECT 3"), ("SELECT".to_owned(), Some(3)));
        assert_eq!(completed("INSERT 0 5"), ("INSERT".to_owned(), Some(5)));
        assert_eq!(completed("CREATE TABLE"), ("CREATE TABLE".to_owned(), None));
        assert_eq!(
            completed("COPY 18446744073709551615"),
            ("COPY".to_owned(), Some(u64::MAX))
        );
        let long = "CREATE TEXT SEARCH CONFIGURATION";
        assert_eq!(completed(long), (long.to_owned(), None));
    }

    #[test]
    fn a_hostile_tag_or_sqlstate_is_cut_or_none() {
        assert_eq!(
            Word::new(&[b'A'; 1000]).map(|word| word.as_str().len()),
            Some(WORD_BYTES)
        );
        for bad in [&b""[..], b"select", b"A\"", b"A\n", b"\xff", b"A\x1b[2J"] {
            assert_eq!(Word::new(bad), None, "{bad:?}");
        }
        assert_eq!(
            command_complete(b"SELECT 99999999999999999999\0"),
            Answer::Completed {
                tag: Word::new(b"SELECT"),
                rows: None
            }
        );
        for code in ["", "4250", "42501x", "42 01", "42p01"] {
            let body = format!("SERROR\0C{code}\0Mno\0\0");
            let Answer::Failed { sqlstate, .. } = error_response(body.as_bytes()) else {
                panic!("an error");
            };
            assert_eq!(sqlstate, None, "{code:?}");
        }
    }

    #[test]
    fn an_error_is_its_sqlstate_and_severity_and_nothing_of_its_message() {
        let body = b"SFEHLER\0VERROR\0C42P01\0MVPANIC\0CXX000\0\0";
        assert_eq!(
            error_response(body),
            Answer::Failed {
                severity: Word::new(b"ERROR"),
                sqlstate: Word::new(b"42P01")
            }
        );
        let fatal = error_response(b"SFATAL\0C57P01\0Mbye\0\0");
        assert!(fatal.is_last_words() && !error_response(body).is_last_words());
    }

    #[test]
    fn any_split_gives_the_same_answers() {
        let stream = [
            frame(b'T', b"\0\0"),
            frame(b'D', b"\0\0"),
            frame(b'D', b"\0\x01\0\0\0\x05hello"),
            frame(b's', b""),
            frame(b'C', b"INSERT 0 5\0"),
            frame(b'E', b"SERROR\0VERROR\0C42P01\0Mno such thing\0\0"),
            frame(b'H', b"\0\0\0"),
            frame(b'd', b"1\n"),
            frame(b'c', b""),
            frame(b'Z', b"T"),
        ]
        .concat();
        let whole = answers(&stream, stream.len());
        assert_eq!(whole.len(), 6);
        assert_eq!(whole[1], Answer::Suspended { rows: 2 });
        for size in 1..40 {
            assert_eq!(answers(&stream, size), whole, "pieces of {size} bytes");
        }
    }
}
