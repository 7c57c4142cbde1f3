//! The statements in a client's stream, for the audit log: what is said, in order, before its last byte goes on.
//!
//! A record of a message comes out of the same call that took the message's last byte, and parts of a long one come
//! earlier, so whoever forwards bytes only after keeping the records of their call forwards nothing unseen. The tap
//! looks at every message by itself and trusts no state of the session: what was sent in a COPY, after an error or after
//! Terminate is recorded too, although PostgreSQL may skip it.

use super::bind::{self, Bind, FunctionCall, ObjectKind};
use super::error::ProtocolError;
use super::fields::split_at_nul;
use super::frames::{Direction, FrameWalker, Piece};
use super::frontend::{Reading, SMALL_LENGTH, Shape};

/// A text or body is recorded in parts of at most this many bytes: the longest record of the audit log (64 KiB).
pub const PART_BYTES: usize = 64 * 1024;
/// A statement or portal name longer than a small message could never be executed, described or closed.
pub const MAX_NAME_BYTES: usize = SMALL_LENGTH as usize;

/// One part of a text or body. The parts of one message follow each other with nothing between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub part: u32,
    pub last: bool,
    /// At most [`PART_BYTES`]. A text is cut between characters where it is UTF-8.
    pub bytes: Vec<u8>,
}

/// What a client asked PostgreSQL to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Query {
        text: Part,
    },
    Parse {
        name: Vec<u8>,
        text: Part,
    },
    Bind(Bind),
    /// A Bind whose body is longer than [`PART_BYTES`]: the whole body, raw, with the names read from its first part.
    LongBind {
        portal: Vec<u8>,
        statement: Vec<u8>,
        raw: Part,
    },
    Execute {
        portal: Vec<u8>,
        /// 0 and below: all rows.
        max_rows: i32,
    },
    Close {
        kind: ObjectKind,
        name: Vec<u8>,
    },
    FunctionCall(FunctionCall),
    /// A FunctionCall whose body is longer than [`PART_BYTES`], raw; its first 4 bytes are the function's OID.
    LongFunctionCall {
        raw: Part,
    },
}

impl Statement {
    /// Where this stands in its message: first part, last part. Most are both.
    pub fn place(&self) -> (bool, bool) {
        match self {
            Self::Query { text: part }
            | Self::Parse { text: part, .. }
            | Self::LongBind { raw: part, .. }
            | Self::LongFunctionCall { raw: part } => (part.part == 1, part.last),
            Self::Bind(_) | Self::Execute { .. } | Self::Close { .. } | Self::FunctionCall(_) => (true, true),
        }
    }
}

/// What is seen in a client's stream: statements, and what bears on which answer is whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Statement(Statement),
    Describe,
    Sync,
    /// CopyDone or CopyFail, after so many bytes of data.
    CopyEnd {
        bytes: u64,
    },
}

/// The tap on one client's stream, from the first byte after start-up.
#[derive(Debug, Clone)]
pub struct StatementTap {
    frames: FrameWalker,
    reading: Reading,
    /// The part or body under way; empty between messages. Never more than [`PART_BYTES`].
    gathered: Vec<u8>,
    /// The statement's name in a Parse or long Bind under way.
    name: Vec<u8>,
    /// The portal's name in a long Bind under way.
    portal: Vec<u8>,
    part: u32,
    copy_bytes: u64,
    /// Of them, those after the last message that is not data.
    copied: u64,
    sound: usize,
    failed: Option<ProtocolError>,
}

impl Default for StatementTap {
    fn default() -> Self {
        Self::new()
    }
}

impl StatementTap {
    pub const fn new() -> Self {
        Self {
            frames: FrameWalker::new(Direction::Frontend),
            reading: Reading::Ignored,
            gathered: Vec::new(),
            name: Vec::new(),
            portal: Vec::new(),
            part: 1,
            copy_bytes: 0,
            copied: 0,
            sound: 0,
            failed: None,
        }
    }

    /// No message is under way.
    pub fn at_boundary(&self) -> bool {
        self.frames.at_boundary()
    }

    /// Bytes of COPY data so far. The data itself is not recorded.
    pub fn copy_bytes(&self) -> u64 {
        self.copy_bytes
    }

    /// Bytes of COPY data that no end has followed yet.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// How many bytes of the last feed lay before the end of its last sound message. After an error, what follows them
    /// is the malformed packet (or the part of it that this feed held).
    pub fn sound_bytes(&self) -> usize {
        self.sound
    }

    /// Memory that is held for the message under way: at most `PART_BYTES + 4 * MAX_NAME_BYTES`, and no statement's
    /// bytes between messages.
    pub fn retained_bytes(&self) -> usize {
        self.gathered.capacity() + self.name.capacity() + self.portal.capacity()
    }

    /// Takes the next bytes of the stream, cut anywhere, and gives each record to `sink`, in order. After an error every
    /// call gives the same error.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Asked)) -> Result<(), ProtocolError> {
        self.sound = 0;
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let fed = self.feed_sound(bytes, sink);
        if let Err(failed) = &fed {
            self.gathered = Vec::new();
            self.failed = Some(failed.clone());
        }
        fed
    }

    fn feed_sound(&mut self, bytes: &[u8], sink: &mut impl FnMut(Asked)) -> Result<(), ProtocolError> {
        let mut rest = bytes;
        while let Some(piece) = self.frames.next_piece(&mut rest)? {
            if piece.first {
                self.begin(&piece)?;
            }
            match self.reading {
                Reading::Ignored => {}
                Reading::Noted => sink(self.noted(piece.message_type)),
                Reading::CopyData => {
                    self.copy_bytes += piece.body.len() as u64;
                    self.copied += piece.body.len() as u64;
                }
                Reading::Whole => self.whole(&piece, sink)?,
                Reading::Raw => self.raw(&piece, sink)?,
                Reading::Query => self.query(&piece, sink)?,
                _ => self.parse(&piece, sink)?,
            }
            if piece.last() {
                self.sound = bytes.len() - rest.len();
            }
        }
        Ok(())
    }

    fn begin(&mut self, piece: &Piece<'_>) -> Result<(), ProtocolError> {
        let shape = Shape::of(piece.message_type)?;
        shape.check(piece.body_length)?;
        if matches!(piece.message_type, b'Q' | b'E') {
            self.copied = 0;
        }
        self.reading = match shape.reading {
            Reading::Whole if piece.body_length as usize > PART_BYTES => Reading::Raw,
            reading => reading,
        };
        self.name.clear();
        self.part = 1;
        Ok(())
    }

    fn noted(&mut self, message_type: u8) -> Asked {
        match message_type {
            b'S' => Asked::Sync,
            _ => self.copy_end(),
        }
    }

    fn copy_end(&mut self) -> Asked {
        Asked::CopyEnd {
            bytes: std::mem::take(&mut self.copied),
        }
    }

    fn whole(&mut self, piece: &Piece<'_>, sink: &mut impl FnMut(Asked)) -> Result<(), ProtocolError> {
        let gathered;
        let body = if piece.first && piece.last() {
            piece.body
        } else {
            self.gather(piece.body);
            if !piece.last() {
                return Ok(());
            }
            gathered = std::mem::take(&mut self.gathered);
            &gathered
        };
        let statement = match piece.message_type {
            b'B' => Statement::Bind(Bind::parse(body)?),
            b'F' => Statement::FunctionCall(FunctionCall::parse(body)?),
            b'E' => {
                let (portal, max_rows) = bind::execute(body)?;
                Statement::Execute { portal, max_rows }
            }
            b'C' => {
                let (kind, name) = bind::object("Close", body)?;
                Statement::Close { kind, name }
            }
            b'D' => {
                bind::object("Describe", body)?;
                sink(Asked::Describe);
                return Ok(());
            }
            _ => {
                bind::copy_fail(body)?;
                sink(self.copy_end());
                return Ok(());
            }
        };
        sink(Asked::Statement(statement));
        Ok(())
    }

    fn raw(&mut self, piece: &Piece<'_>, sink: &mut impl FnMut(Asked)) -> Result<(), ProtocolError> {
        let mut bytes = piece.body;
        while let Some((some, more)) = self.split_at_full_part(bytes) {
            self.gather(some);
            bytes = more;
            let part = self.take_part(0, false);
            sink(Asked::Statement(self.raw_record(piece.message_type, part)?));
        }
        self.gather(bytes);
        if piece.last() {
            let part = self.take_part(0, true);
            sink(Asked::Statement(self.raw_record(piece.message_type, part)?));
        }
        Ok(())
    }

    fn raw_record(&mut self, message_type: u8, raw: Part) -> Result<Statement, ProtocolError> {
        if message_type != b'B' {
            return Ok(Statement::LongFunctionCall { raw });
        }
        if raw.part == 1 {
            let (portal, statement) = Bind::names(&raw.bytes)?;
            if portal.len().max(statement.len()) > MAX_NAME_BYTES {
                return Err(name_too_long(bind::BIND));
            }
            (self.portal, self.name) = (portal, statement);
        }
        let (portal, statement) = match raw.last {
            true => (std::mem::take(&mut self.portal), std::mem::take(&mut self.name)),
            false => (self.portal.clone(), self.name.clone()),
        };
        Ok(Statement::LongBind { portal, statement, raw })
    }

    fn query(&mut self, piece: &Piece<'_>, sink: &mut impl FnMut(Asked)) -> Result<(), ProtocolError> {
        const QUERY: &str = "Query";
        match split_at_nul(piece.body) {
            None => {
                self.text(piece.body, |text, _| sink(Asked::Statement(Statement::Query { text })));
                unterminated_if(piece.last(), QUERY)
            }
            Some((text, after)) => {
                self.text(text, |text, _| sink(Asked::Statement(Statement::Query { text })));
                no_more(QUERY, after.len() + piece.left as usize)?;
                let text = self.take_part(0, true);
                sink(Asked::Statement(Statement::Query { text }));
                Ok(())
            }
        }
    }

    fn parse(&mut self, piece: &Piece<'_>, sink: &mut impl FnMut(Asked)) -> Result<(), ProtocolError> {
        const PARSE: &str = "Parse";
        let mut body = piece.body;
        if self.reading == Reading::ParseName {
            let found = split_at_nul(body);
            let (name, after) = found.unwrap_or((body, &[]));
            if self.name.len() + name.len() > MAX_NAME_BYTES {
                return Err(name_too_long(PARSE));
            }
            self.name.extend_from_slice(name);
            if found.is_none() {
                return unterminated_if(piece.last(), PARSE);
            }
            self.reading = Reading::ParseText;
            body = after;
        }
        if self.reading == Reading::ParseText {
            let found = split_at_nul(body);
            let (text, after) = found.unwrap_or((body, &[]));
            self.text(text, |text, name| {
                let name = name.to_vec();
                sink(Asked::Statement(Statement::Parse { name, text }));
            });
            if found.is_none() {
                return unterminated_if(piece.last(), PARSE);
            }
            self.reading = Reading::ParseTypes {
                // Both are parts of one body, whose length is a u32.
                length: after.len() as u32 + piece.left,
                seen: 0,
                count: 0,
            };
            body = after;
        }
        self.parse_types(PARSE, body)?;
        if piece.last() {
            let text = self.take_part(0, true);
            let name = std::mem::take(&mut self.name);
            sink(Asked::Statement(Statement::Parse { name, text }));
        }
        Ok(())
    }

    /// The parameter types of a Parse are not recorded, but they must fill the message exactly.
    fn parse_types(&mut self, message: &'static str, body: &[u8]) -> Result<(), ProtocolError> {
        const COUNT_BYTES: u32 = 2;
        const TYPE_BYTES: u32 = 4;
        let Reading::ParseTypes { length, seen, count } = &mut self.reading else {
            return Ok(());
        };
        if *length < COUNT_BYTES {
            return Err(ProtocolError::Truncated { message });
        }
        for byte in body {
            if *seen == COUNT_BYTES {
                break;
            }
            *count = *count << 8 | u16::from(*byte);
            *seen += 1;
        }
        let needed = COUNT_BYTES + TYPE_BYTES * u32::from(*count);
        match *seen == COUNT_BYTES {
            true if needed > *length => Err(ProtocolError::Truncated { message }),
            true => no_more(message, (*length - needed) as usize),
            false => Ok(()),
        }
    }

    /// Gathers text and records each part that is full, once more text follows it.
    fn text(&mut self, mut bytes: &[u8], mut record: impl FnMut(Part, &[u8])) {
        while let Some((some, more)) = self.split_at_full_part(bytes) {
            self.gather(some);
            bytes = more;
            let part = self.take_part(incomplete_character(&self.gathered), false);
            record(part, &self.name);
        }
        self.gather(bytes);
    }

    /// Where `bytes` more would be too many for this part: what still fits, and the rest.
    fn split_at_full_part<'b>(&self, bytes: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        let room = PART_BYTES - self.gathered.len();
        match bytes.len() > room {
            true => Some(bytes.split_at(room)),
            false => None,
        }
    }

    fn gather(&mut self, bytes: &[u8]) {
        let needed = self.gathered.len() + bytes.len();
        let capacity = self.gathered.capacity();
        if needed > capacity {
            // Doubled like any vector's, but never beyond a part.
            let wanted = needed.max((2 * capacity).min(PART_BYTES));
            self.gathered.reserve_exact(wanted - self.gathered.len());
        }
        self.gathered.extend_from_slice(bytes);
    }

    /// The gathered bytes as the next part, without the last `keep`, which begin the part after it.
    fn take_part(&mut self, keep: usize, last: bool) -> Part {
        let kept = self.gathered.split_off(self.gathered.len() - keep);
        let bytes = std::mem::replace(&mut self.gathered, kept);
        let part = self.part;
        self.part += 1;
        Part { part, last, bytes }
    }
}

fn unterminated_if(ended: bool, message: &'static str) -> Result<(), ProtocolError> {
    match ended {
        true => Err(ProtocolError::Unterminated { message }),
        false => Ok(()),
    }
}

fn no_more(message: &'static str, count: usize) -> Result<(), ProtocolError> {
    match count {
        0 => Ok(()),
        _ => Err(ProtocolError::TrailingBytes { message, count }),
    }
}

fn name_too_long(message: &'static str) -> ProtocolError {
    ProtocolError::NameTooLong {
        message,
        max: MAX_NAME_BYTES,
    }
}

/// How many bytes at the end begin a UTF-8 character that does not end there: 0 to 3.
fn incomplete_character(text: &[u8]) -> usize {
    for (at, byte) in text.iter().rev().take(3).enumerate() {
        let here = at + 1;
        let whole = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if whole > here { here } else { 0 };
    }
    0
}
