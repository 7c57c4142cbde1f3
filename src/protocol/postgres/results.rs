//! What became of each request of one session: both directions, put together in the order in which PostgreSQL works.
//!
//! PostgreSQL answers in the order of the requests ("Message Flow" in its chapter "Frontend/Backend Protocol"): each message of
//! the extended protocol once, a Query once for each of its statements, and Query, FunctionCall and Sync with a ReadyForQuery at
//! their end. After an error in the extended protocol it passes over everything up to the next Sync
//! (src/backend/tcop/postgres.c, `ignore_till_sync`). So the oldest request that waits is the one that is answered. Where that
//! cannot be said for certain, because the client broke the rules of a COPY, the results say so from there on.
//!
//! Which text an Execute ran is followed in the same order, by the Parse that made its statement: a Parse that failed made none,
//! whatever was sent after it.

use super::answers::{Answer, CopyDirection, Word};
use super::bind::ObjectKind;
use super::statements::{Asked, Statement};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Requests that wait for their answers, beyond which the client is held back: 32 bytes each. PostgreSQL holds fewer answers
/// back than this, as it sends them whenever it has 8 KiB, and the shortest has 5 bytes; so whoever waits here is served.
pub const WAITING_MAX: usize = 4096;
/// Prepared statements and portals whose texts are known; of more than that an Execute does not say what it ran.
pub const NAMES_MAX: usize = 4096;
/// Results that are gathered before a ReadyForQuery: some 80 bytes each in an event.
pub const BATCH_MAX: usize = 1000;
/// What is kept of the memory of a long batch or pipeline.
const KEPT: usize = 8;

/// Which of its messages a request failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Query,
    FunctionCall,
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    /// The end of the transaction that a Sync asked for: a constraint that was deferred, for example.
    Sync,
}

impl Step {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::FunctionCall => "function",
            Self::Parse => "parse",
            Self::Bind => "bind",
            Self::Describe => "describe",
            Self::Execute => "execute",
            Self::Close => "close",
            Self::Sync => "sync",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With its command tag.
    Completed(Option<Word>),
    /// There was no statement in the text.
    Empty,
    /// The portal has more rows.
    Suspended,
    Failed {
        at: Step,
        severity: Option<Word>,
        sqlstate: Option<Word>,
    },
}

/// The data of a COPY: bytes of the messages' bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub direction: CopyDirection,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// What became of one statement of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The number of the request; a Describe and a Sync have none.
    pub request: Option<u64>,
    /// The Parse whose text was executed, by its number.
    pub parsed: Option<u64>,
    pub ended: Ended,
    pub rows: Option<u64>,
    pub copied: Option<Copied>,
}

/// The results up to a ReadyForQuery, or as many as one event may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    pub outcomes: &'a [Outcome],
    /// Requests that PostgreSQL passed over, after one that failed.
    pub skipped: u64,
    /// Which result is of which request is not certain.
    pub in_doubt: bool,
}

/// A name, keyed: a name can be 10 000 bytes long. PostgreSQL looks at its first [`NAME_BYTES`] only, converted from the client's
/// encoding. So two names that differ may be the same to it: a name that is longer, or not ASCII, has no text of its own here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key(u64);

/// What PostgreSQL looks at of a name (NAMEDATALEN less one). One that was built with more takes longer ones for different.
const NAME_BYTES: usize = 63;

impl Key {
    /// This bit of the hash.
    const HAS_TEXT: u64 = 1;

    fn of(keys: &RandomState, name: &[u8]) -> Self {
        let looked_at = &name[..name.len().min(NAME_BYTES)];
        let hash = keys.hash_one(looked_at);
        Self(match looked_at.len() == name.len() && name.is_ascii() {
            true => hash | Self::HAS_TEXT,
            false => hash & !Self::HAS_TEXT,
        })
    }

    fn has_text(self) -> bool {
        self.0 & Self::HAS_TEXT != 0
    }

    /// The same for all names that PostgreSQL takes for one.
    fn entry(self) -> u64 {
        self.0 | Self::HAS_TEXT
    }
}

/// The Parse of each name's text.
type Texts = HashMap<u64, u64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Startup,
    Query,
    FunctionCall,
    Parse { statement: Key },
    Bind { portal: Key, statement: Key },
    Describe,
    Execute { portal: Key },
    CloseStatement { statement: Key },
    ClosePortal { portal: Key },
    Sync,
    CopyEnd { bytes: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    number: u64,
    ask: Ask,
}

#[derive(Debug, Clone, Copy)]
struct Copying {
    direction: CopyDirection,
    /// The client has ended its data, after so many bytes.
    ended: Option<u64>,
    bytes_out: u64,
}

#[derive(Debug, Clone)]
pub struct Results {
    waiting: VecDeque<Waiting>,
    /// How many of them, the last ones, are held back with the bytes that they came in.
    held: usize,
    /// Of the Query or FunctionCall at the front something was answered.
    begun: bool,
    /// PostgreSQL passes over everything up to the next Sync, which has not been sent yet.
    skipping: bool,
    /// Syncs that a COPY may have ignored, and that may be answered all the same when it failed early.
    stale_syncs: u64,
    copying: Option<Copying>,
    /// The Parse of each statement, and of the statement of each portal.
    statements: Texts,
    portals: Texts,
    keys: RandomState,
    outcomes: Vec<Outcome>,
    skipped: u64,
    in_doubt: bool,
}

impl Default for Results {
    /// After the StartupMessage, which a ReadyForQuery answers, too.
    fn default() -> Self {
        let startup = Waiting {
            number: 0,
            ask: Ask::Startup,
        };
        Self {
            waiting: VecDeque::from([startup]),
            held: 0,
            begun: false,
            skipping: false,
            stale_syncs: 0,
            copying: None,
            statements: HashMap::new(),
            portals: HashMap::new(),
            keys: RandomState::new(),
            outcomes: Vec::new(),
            skipped: 0,
            in_doubt: false,
        }
    }
}

impl Results {
    /// The client has sent this; `number` is the request's that it belongs to. It counts as held back until [`Self::passed`].
    pub fn asked(&mut self, number: u64, asked: &Asked) {
        let ask = match asked {
            Asked::Statement(statement) => match self.ask_of(statement) {
                Some(ask) => ask,
                None => return,
            },
            Asked::Describe => Ask::Describe,
            Asked::Sync => return self.sync(number),
            Asked::CopyEnd { bytes } => return self.copy_end(number, *bytes),
        };
        if self.skipping {
            self.skipped += u64::from(ask != Ask::Describe);
            return;
        }
        // Whether a COPY takes it for an error or is over by then depends on when PostgreSQL reads it.
        self.in_doubt |= self.takes_data();
        self.push(number, ask);
    }

    fn ask_of(&self, statement: &Statement) -> Option<Ask> {
        let (_, whole) = statement.place();
        let key = |name: &[u8]| Key::of(&self.keys, name);
        whole.then(|| match statement {
            Statement::Query { .. } => Ask::Query,
            Statement::FunctionCall(_) | Statement::LongFunctionCall { .. } => Ask::FunctionCall,
            Statement::Parse { name, .. } => Ask::Parse { statement: key(name) },
            Statement::Bind(bind) => Ask::Bind {
                portal: key(&bind.portal),
                statement: key(&bind.statement),
            },
            Statement::LongBind { portal, statement, .. } => Ask::Bind {
                portal: key(portal),
                statement: key(statement),
            },
            Statement::Execute { portal, .. } => Ask::Execute { portal: key(portal) },
            Statement::Close { kind, name } => match kind {
                ObjectKind::Statement => Ask::CloseStatement { statement: key(name) },
                ObjectKind::Portal => Ask::ClosePortal { portal: key(name) },
            },
        })
    }

    fn sync(&mut self, number: u64) {
        if self.takes_data() {
            self.stale_syncs += 1;
            return;
        }
        self.skipping = false;
        self.push(number, Ask::Sync);
    }

    fn copy_end(&mut self, number: u64, bytes: u64) {
        match &mut self.copying {
            Some(copying) if copying.direction != CopyDirection::Out && copying.ended.is_none() => {
                copying.ended = Some(bytes);
            }
            // Of a COPY that has failed, or one more than a COPY takes. They are never answered, and must not wait by themselves.
            _ if self
                .waiting
                .back()
                .is_none_or(|last| matches!(last.ask, Ask::CopyEnd { .. })) => {}
            // Sent ahead of CopyInResponse, or late.
            _ => self.push(number, Ask::CopyEnd { bytes }),
        }
    }

    fn push(&mut self, number: u64, ask: Ask) {
        self.waiting.push_back(Waiting { number, ask });
        self.held += 1;
    }

    /// So much waits for PostgreSQL's answers that what is held back must not be passed on yet.
    pub fn is_full(&self) -> bool {
        self.waiting.len().saturating_sub(self.held) > WAITING_MAX
    }

    /// What was held back is passed on.
    pub fn passed(&mut self) {
        self.held = 0;
    }

    fn takes_data(&self) -> bool {
        let takes = |copying: &Copying| copying.direction != CopyDirection::Out && copying.ended.is_none();
        self.copying.as_ref().is_some_and(takes)
    }

    /// Which results there are that nobody has noted.
    pub fn batch(&self) -> Option<Batch<'_>> {
        let batch = Batch {
            outcomes: &self.outcomes,
            skipped: self.skipped,
            in_doubt: self.in_doubt,
        };
        (!self.outcomes.is_empty() || self.skipped > 0).then_some(batch)
    }

    /// They are noted.
    pub fn noted(&mut self) {
        self.outcomes.clear();
        self.outcomes.shrink_to(KEPT);
        self.skipped = 0;
    }

    /// Every request is answered.
    pub fn is_answered(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Memory that is held for requests, names and results.
    pub fn retained_bytes(&self) -> usize {
        let names = self.statements.capacity() + self.portals.capacity();
        self.waiting.capacity() * size_of::<Waiting>()
            + names * size_of::<(u64, u64)>()
            + self.outcomes.capacity() * size_of::<Outcome>()
    }

    /// PostgreSQL has sent this. `copied` is COPY data that came before it; `sent` is COPY data of the client's that no end has
    /// followed yet. True when the results are to be noted before the answer goes on.
    pub fn answered(&mut self, answer: &Answer, copied: u64, sent: u64) -> bool {
        if let Some(copying) = &mut self.copying {
            copying.bytes_out += copied;
        }
        self.forget_copy_ends();
        match answer {
            Answer::ParseComplete => self.parse_complete(),
            Answer::BindComplete => self.bind_complete(),
            Answer::CloseComplete => self.close_complete(),
            Answer::Described => _ = self.pop_if(|ask| ask == Ask::Describe),
            Answer::Completed { tag, rows } => {
                self.names_of_sql(*tag);
                self.completed(Ended::Completed(*tag), *rows);
            }
            Answer::EmptyQuery => self.completed(Ended::Empty, None),
            Answer::Suspended { rows } => self.completed(Ended::Suspended, Some(*rows)),
            Answer::FunctionResult => self.completed(Ended::Completed(None), None),
            Answer::Failed { severity, sqlstate } => self.failed(*severity, *sqlstate, sent),
            Answer::Copies(direction) => self.copy_begins(*direction),
            Answer::Ready(status) => self.ready(*status),
        }
        self.held = self.held.min(self.waiting.len());
        matches!(answer, Answer::Ready(_)) || answer.is_last_words() || self.outcomes.len() >= BATCH_MAX
    }

    fn front(&self) -> Option<Waiting> {
        self.waiting.front().copied()
    }

    fn pop_if(&mut self, is_it: impl Fn(Ask) -> bool) -> Option<Waiting> {
        let popped = self.front().filter(|front| is_it(front.ask))?;
        self.waiting.pop_front();
        Some(popped)
    }

    fn parse_complete(&mut self) {
        let Some(parse) = self.pop_if(|ask| matches!(ask, Ask::Parse { .. })) else {
            return self.in_doubt = true;
        };
        if let Ask::Parse { statement } = parse.ask {
            keep(&mut self.statements, statement, Some(parse.number));
        }
    }

    fn bind_complete(&mut self) {
        match self.pop_if(|ask| matches!(ask, Ask::Bind { .. })) {
            Some(Waiting {
                ask: Ask::Bind { portal, statement },
                ..
            }) => {
                let parsed = text_of(&self.statements, statement);
                keep(&mut self.portals, portal, parsed);
            }
            _ => self.in_doubt = true,
        }
    }

    fn close_complete(&mut self) {
        let closes = |ask| matches!(ask, Ask::CloseStatement { .. } | Ask::ClosePortal { .. });
        match self.pop_if(closes).map(|close| close.ask) {
            Some(Ask::CloseStatement { statement }) => _ = self.statements.remove(&statement.entry()),
            Some(Ask::ClosePortal { portal }) => _ = self.portals.remove(&portal.entry()),
            _ => self.in_doubt = true,
        }
    }

    /// SQL has statements about the same names. Which of them, only its text says.
    fn names_of_sql(&mut self, tag: Option<Word>) {
        match tag.as_ref().map_or("", Word::as_str) {
            "PREPARE" | "DEALLOCATE" | "DEALLOCATE ALL" | "DISCARD ALL" => {
                self.statements.clear();
                self.portals.clear();
            }
            "DECLARE CURSOR" | "CLOSE CURSOR" | "CLOSE CURSOR ALL" => self.portals.clear(),
            _ => {}
        }
    }

    fn completed(&mut self, ended: Ended, rows: Option<u64>) {
        let copied = self.take_copied(0);
        let Some(front) = self.front() else {
            return self.in_doubt = true;
        };
        let mut outcome = Outcome {
            request: Some(front.number),
            parsed: None,
            ended,
            rows,
            copied,
        };
        match front.ask {
            Ask::Query | Ask::FunctionCall => self.begun = true,
            Ask::Execute { portal } => {
                outcome.parsed = text_of(&self.portals, portal);
                self.waiting.pop_front();
            }
            _ => return self.in_doubt = true,
        }
        // Whatever a COPY ignored has been passed by now.
        self.stale_syncs = 0;
        self.outcomes.push(outcome);
    }

    fn failed(&mut self, severity: Option<Word>, sqlstate: Option<Word>, sent: u64) {
        let copied = self.take_copied(sent);
        let Some(front) = self.front() else {
            // PostgreSQL ends a session that asks for nothing.
            return;
        };
        let mut parsed = None;
        let at = match front.ask {
            Ask::Startup | Ask::CopyEnd { .. } => return,
            Ask::Query => Step::Query,
            Ask::FunctionCall => Step::FunctionCall,
            Ask::Sync => Step::Sync,
            Ask::Parse { statement } => {
                self.unnamed_is_gone(statement);
                Step::Parse
            }
            Ask::Bind { .. } => Step::Bind,
            Ask::Describe => Step::Describe,
            Ask::Execute { portal } => {
                parsed = text_of(&self.portals, portal);
                Step::Execute
            }
            Ask::CloseStatement { .. } | Ask::ClosePortal { .. } => Step::Close,
        };
        self.outcomes.push(Outcome {
            request: (!matches!(at, Step::Describe | Step::Sync)).then_some(front.number),
            parsed,
            ended: Ended::Failed { at, severity, sqlstate },
            rows: None,
            copied,
        });
        match at {
            Step::Query | Step::FunctionCall => self.begun = true,
            Step::Sync => {}
            _ => self.skip_to_sync(),
        }
        // The transaction's portals end with it.
        self.portals.clear();
    }

    /// A Parse of the unnamed statement removes the one before first of all (`exec_parse_message`).
    fn unnamed_is_gone(&mut self, statement: Key) {
        if statement == self.unnamed() {
            self.statements.remove(&statement.entry());
        }
    }

    fn unnamed(&self) -> Key {
        Key::of(&self.keys, b"")
    }

    fn skip_to_sync(&mut self) {
        self.waiting.pop_front();
        while let Some(passed_over) = self.pop_if(|ask| ask != Ask::Sync) {
            let has_no_event = matches!(passed_over.ask, Ask::Describe | Ask::CopyEnd { .. });
            self.skipped += u64::from(!has_no_event);
        }
        self.skipping = self.waiting.is_empty();
    }

    /// PostgreSQL copies. While it takes data it ignores every Sync, also those that the client has sent already.
    fn copy_begins(&mut self, direction: CopyDirection) {
        let mut copying = Copying {
            direction,
            ended: None,
            bytes_out: 0,
        };
        if direction != CopyDirection::Out {
            // The first is the request that copies.
            while let Some(next) = self.waiting.get(1).copied() {
                match next.ask {
                    Ask::Sync => self.stale_syncs += 1,
                    Ask::CopyEnd { bytes } => copying.ended = Some(bytes),
                    _ => {
                        self.in_doubt = true;
                        break;
                    }
                }
                self.waiting.remove(1);
                if copying.ended.is_some() {
                    break;
                }
            }
        }
        self.copying = Some(copying);
    }

    /// The COPY is over; `sent` counts where the client has not ended its data.
    fn take_copied(&mut self, sent: u64) -> Option<Copied> {
        let copying = self.copying.take()?;
        Some(Copied {
            direction: copying.direction,
            bytes_in: copying.ended.unwrap_or(sent),
            bytes_out: copying.bytes_out,
        })
    }

    fn ready(&mut self, status: u8) {
        match self.front().map(|front| front.ask) {
            Some(Ask::Query) if self.begun => {
                let unnamed = self.unnamed().entry();
                self.statements.remove(&unnamed);
                self.portals.remove(&unnamed);
                self.waiting.pop_front();
            }
            Some(Ask::FunctionCall) if self.begun => _ = self.waiting.pop_front(),
            Some(Ask::Startup | Ask::Sync) => _ = self.waiting.pop_front(),
            // It answers a Sync that a COPY was thought to have ignored.
            _ if self.stale_syncs > 0 => self.stale_syncs -= 1,
            _ => self.lost_count(),
        }
        self.begun = false;
        // Whichever Sync it answers: PostgreSQL passes over nothing any more.
        self.skipping = false;
        self.copying = None;
        if status == b'I' {
            self.portals.clear();
        }
        self.forget_copy_ends();
        if self.waiting.is_empty() {
            self.waiting.shrink_to(KEPT);
        }
    }

    /// Each ReadyForQuery answers one of these, so that the next ones are right again.
    fn lost_count(&mut self) {
        self.in_doubt = true;
        let ends = |ask| matches!(ask, Ask::Startup | Ask::Query | Ask::FunctionCall | Ask::Sync);
        while let Some(front) = self.waiting.pop_front() {
            if ends(front.ask) {
                break;
            }
        }
    }

    /// CopyDone and CopyFail that no COPY takes are not answered.
    fn forget_copy_ends(&mut self) {
        while self.pop_if(|ask| matches!(ask, Ask::CopyEnd { .. })).is_some() {}
    }
}

/// The Parse whose text this name has, where that is certain.
fn text_of(texts: &Texts, name: Key) -> Option<u64> {
    name.has_text().then(|| texts.get(&name.entry()).copied())?
}

fn keep(texts: &mut Texts, name: Key, parsed: Option<u64>) {
    match parsed.filter(|_| name.has_text()) {
        Some(parsed) if texts.len() < NAMES_MAX || texts.contains_key(&name.entry()) => {
            _ = texts.insert(name.entry(), parsed);
        }
        _ => _ = texts.remove(&name.entry()),
    }
}
