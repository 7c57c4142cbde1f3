//! Requests and answers of one session: whether PostgreSQL owes the client anything, or the client has begun something.
//!
//! A session is idle when every message that PostgreSQL answers with ReadyForQuery has been answered, the last answer said
//! that no transaction is open, and nothing that needs a Sync was sent since ("Message Flow" in PostgreSQL's chapter
//! "Frontend/Backend Protocol", and src/backend/tcop/postgres.c). Counting makes pipelines right: a ReadyForQuery answers the
//! oldest request and not the newest. Where the count may be too low, the session counts as busy from then on: a session that
//! is idle in truth may wait for its end, one that is busy must not be cut.

use std::collections::VecDeque;

/// Changes between kinds of requests that wait for their answers; a pipeline of one kind is one run. What mixes more than this
/// counts as busy for good.
const RUNS_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Query or FunctionCall.
    Query,
    Sync,
    /// CopyDone or CopyFail, sent before PostgreSQL has said that it copies; it is not answered.
    CopyEnd,
}

/// A COPY whose data the client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copying {
    In,
    /// Both sides send data: a replication that streams.
    Both,
}

#[derive(Debug, Clone)]
pub struct Exchange {
    /// What was sent and is not answered, oldest first, as runs.
    waiting: VecDeque<(Sent, u32)>,
    /// Messages of the extended protocol were sent that no Sync has followed: their transaction is open.
    unsynced: bool,
    /// PostgreSQL takes COPY data; it ignores Syncs meanwhile.
    copying: Option<Copying>,
    /// A Sync was taken for one that a COPY ignored. If the COPY fails, it may be answered all the same.
    sync_ignored: bool,
    in_transaction: bool,
    /// The count may be too low.
    lost: bool,
}

impl Default for Exchange {
    /// After the StartupMessage, which a ReadyForQuery answers, too.
    fn default() -> Self {
        Self {
            waiting: VecDeque::from([(Sent::Query, 1)]),
            unsynced: false,
            copying: None,
            sync_ignored: false,
            in_transaction: false,
            lost: false,
        }
    }
}

impl Exchange {
    /// Nothing is owed to the client, and it has nothing open.
    pub fn is_idle(&self) -> bool {
        self.is_answered() && !self.in_transaction
    }

    /// Nothing is owed to the client; a transaction may be open.
    pub fn is_answered(&self) -> bool {
        let answered = self.waiting.iter().all(|(sent, _)| *sent == Sent::CopyEnd);
        answered && !(self.unsynced || self.copying.is_some() || self.lost)
    }

    /// PostgreSQL has to answer before anything else happens, as far as is known: of what no Sync has followed it may have
    /// been asked by a Flush.
    pub fn owes_answer(&self) -> bool {
        !self.is_answered() && (self.lost || self.copying.is_none())
    }

    /// PostgreSQL takes COPY data, and says nothing before it has all of it.
    pub fn takes_data(&self) -> bool {
        self.copying == Some(Copying::In)
    }

    /// A replication streams: either side sends when it has something to say, and nobody owes anything. It has no end of its
    /// own, and is nothing at rest.
    pub fn streams(&self) -> bool {
        self.copying == Some(Copying::Both)
    }

    /// The messages cannot be followed: the session counts as busy from here on.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// The client has sent a whole message of this type.
    pub fn sent(&mut self, message_type: u8) {
        match message_type {
            b'Q' | b'F' => {
                // In a COPY it is an error, and whether it is answered by itself depends on when PostgreSQL reads it.
                self.lost |= self.copying.is_some();
                self.push(Sent::Query);
                self.unsynced = false;
            }
            b'S' if self.copying.is_some() => self.sync_ignored = true,
            b'S' => {
                self.push(Sent::Sync);
                self.unsynced = false;
            }
            b'c' | b'f' if self.copying.is_some() => self.copying = None,
            b'c' | b'f' if self.unsynced || !self.waiting.is_empty() => self.push(Sent::CopyEnd),
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                self.lost |= self.copying.is_some();
                self.unsynced = true;
            }
            _ => {}
        }
    }

    /// PostgreSQL has sent ReadyForQuery with this status.
    pub fn ready(&mut self, status: u8) {
        self.in_transaction = status != b'I';
        self.copying = None;
        self.sync_ignored = false;
        self.forget_copy_ends();
        if !self.pop() {
            self.lose();
        }
        self.forget_copy_ends();
    }

    /// PostgreSQL has sent a whole message of another type than ReadyForQuery.
    pub fn received(&mut self, message_type: u8) {
        match message_type {
            b'G' => self.copy_begins(Copying::In),
            b'W' => self.copy_begins(Copying::Both),
            b'E' => {
                self.copying = None;
                self.lost |= self.sync_ignored;
            }
            _ => {}
        }
    }

    /// CopyInResponse or CopyBothResponse. Its COPY is of the oldest request if that is a Query, else of an Execute before it. Syncs up to the end of
    /// the data are ignored, also those that the client has sent already.
    fn copy_begins(&mut self, copying: Copying) {
        let of_query = matches!(self.waiting.front(), Some((Sent::Query, _))) && self.pop();
        self.copying = Some(copying);
        while let Some((sent, _)) = self.waiting.front() {
            match sent {
                Sent::Sync => {
                    self.waiting.pop_front();
                    self.sync_ignored = true;
                }
                Sent::CopyEnd => {
                    self.pop();
                    self.copying = None;
                    break;
                }
                Sent::Query => {
                    self.lose();
                    break;
                }
            }
        }
        if of_query {
            self.unpop();
        } else if self.waiting.is_empty() {
            // The Execute's transaction ends with a Sync that is still to come.
            self.unsynced = true;
        }
    }

    fn push(&mut self, sent: Sent) {
        let runs = self.waiting.len();
        match self.waiting.back_mut() {
            Some((last, count)) if *last == sent => *count = count.saturating_add(1),
            _ if runs >= RUNS_MAX => self.lose(),
            _ => self.waiting.push_back((sent, 1)),
        }
    }

    /// Takes the oldest one. False where there is none.
    fn pop(&mut self) -> bool {
        match self.waiting.front_mut() {
            None => return false,
            Some((_, count)) if *count > 1 => *count -= 1,
            Some(_) => _ = self.waiting.pop_front(),
        }
        true
    }

    /// Puts the Query back that runs.
    fn unpop(&mut self) {
        match self.waiting.front_mut() {
            Some((Sent::Query, count)) => *count = count.saturating_add(1),
            _ => self.waiting.push_front((Sent::Query, 1)),
        }
    }

    fn forget_copy_ends(&mut self) {
        while let Some((Sent::CopyEnd, _)) = self.waiting.front() {
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session after its start-up. In a script, `>` sends messages of these types, `<` receives them; `<ZI` is ReadyForQuery.
    fn after(script: &str) -> Exchange {
        let mut exchange = Exchange::default();
        exchange.ready(b'I');
        assert!(exchange.is_idle());
        play(&mut exchange, script);
        exchange
    }

    fn play(exchange: &mut Exchange, script: &str) {
        for word in script.split_whitespace() {
            match word.as_bytes() {
                [b'>', types @ ..] => types.iter().for_each(|message_type| exchange.sent(*message_type)),
                [b'<', b'Z', status] => exchange.ready(*status),
                [b'<', types @ ..] => types.iter().for_each(|message_type| exchange.received(*message_type)),
                _ => panic!("{word}"),
            }
        }
    }

    #[track_caller]
    fn is_idle(script: &str) {
        assert!(after(script).is_idle(), "{script}: {:?}", after(script));
    }

    #[track_caller]
    fn is_busy(script: &str) {
        assert!(!after(script).is_idle(), "{script}: {:?}", after(script));
    }

    #[test]
    fn a_session_is_busy_until_its_start_up_is_answered() {
        let mut exchange = Exchange::default();
        assert!(!exchange.is_idle());
        exchange.sent(b'Q');
        exchange.ready(b'I');
        assert!(!exchange.is_idle(), "the query was sent ahead");
        exchange.ready(b'I');
        assert!(exchange.is_idle());
    }

    #[test]
    fn a_query_is_answered_by_ready_for_query_and_by_nothing_else() {
        is_busy(">Q");
        is_busy(">Q <TDDC");
        is_idle(">Q <TDDC <ZI");
        is_busy(">Q <E");
        is_idle(">Q <E <ZI");
        is_idle(">F <V <ZI");
    }

    #[test]
    fn an_open_or_a_failed_transaction_is_busy() {
        is_busy(">Q <C <ZT");
        is_busy(">Q <C <ZT >Q <E <ZE");
        is_idle(">Q <C <ZT >Q <E <ZE >Q <C <ZI");
    }

    #[test]
    fn an_answer_is_owed_unless_the_client_has_to_say_something_first() {
        for owed in [">Q", ">Q <TDDC", ">P", ">PBES", ">QQ <C <ZI", ">Q <G >dc"] {
            assert!(after(owed).owes_answer(), "{owed}");
        }
        for the_clients_turn in ["", ">Q <C <ZI", ">Q <C <ZT", ">Q <G", ">Q <G >d"] {
            assert!(!after(the_clients_turn).owes_answer(), "{the_clients_turn}");
        }
        assert!(after(">Q <G >d").takes_data() && !after(">Q <G >dc").takes_data());
    }

    #[test]
    fn what_an_idle_session_hears_unasked_does_not_make_it_busy() {
        is_idle(">Q <C <ZI <A <N <S");
    }

    #[test]
    fn a_pipeline_is_busy_until_its_last_request_is_answered() {
        is_busy(">QQQ <C <ZI <C <ZI");
        is_idle(">QQQ <C <ZI <C <ZI <C <ZI");
        is_busy(">PBES >PBES <12C <ZI");
        is_idle(">PBES >PBES <12C <ZI <12C <ZI");
        is_busy(">PBESQ <12C <ZI");
        is_idle(">PBESQ <12C <ZI <C <ZI");
    }

    #[test]
    fn what_no_sync_has_followed_is_busy() {
        for message_type in ["P", "B", "D", "E", "C"] {
            is_busy(&format!(">Q <C <ZI >{message_type}"));
        }
        is_busy(">PBES <12C <ZI >B");
        is_idle(">PBES <12C <ZI >BS <2 <ZI");
        is_idle(">H");
    }

    #[test]
    fn an_error_in_the_extended_protocol_is_over_with_its_sync() {
        is_busy(">PBE <E");
        is_busy(">PBE <E >PBES");
        is_idle(">PBE <E >PBES <ZI");
    }

    #[test]
    fn a_copy_of_a_query_is_busy_until_it_is_answered() {
        is_busy(">Q <G");
        is_busy(">Q <G >dd");
        is_busy(">Q <G >ddc");
        is_idle(">Q <G >ddc <C <ZI");
        is_idle(">Q <G >ddf <E <ZI");
        is_idle(">Q <G >dc <G >dc <C <ZI");
        is_idle(">Q <HddcC <ZI");
    }

    #[test]
    fn a_copy_that_fails_under_its_data_is_over_with_its_query() {
        is_busy(">Q <G >d <E");
        is_idle(">Q <G >d <E <ZI >ddc");
        is_idle(">Q <G >d <E >dc <ZI");
        is_idle(">Q <G >d <E >dc <ZI >Q <G >dc <C <ZI");
    }

    #[test]
    fn a_sync_that_a_copy_ignores_is_not_waited_for() {
        // As libpq does: the Sync goes out with the Execute, and once more after the data.
        is_busy(">PBDES <12nG");
        is_busy(">PBDES <12nG >ddc");
        is_busy(">PBDES <12nG >ddcS <C");
        is_idle(">PBDES <12nG >ddcS <C <ZI");
        is_idle(">PBDE <12nG >ddcS <C <ZI");
        is_idle(">Q <G >dSdSc <C <ZI");
        is_busy(">PBDES <12nG >ddcS <C <ZI >Q");
    }

    #[test]
    fn data_that_was_sent_before_the_answer_is_accounted_for() {
        is_idle(">PBEdcS <12GC <ZI");
        is_idle(">PBESdcS <12GC <ZI");
        is_idle(">Qdc <G <C <ZI");
        is_busy(">QdcQ <G <C <ZI");
        is_idle(">QdcQ <G <C <ZI <C <ZI");
    }

    #[test]
    fn a_replication_that_streams_is_busy_owes_nothing_and_ends_with_its_request() {
        for streams in [">Q <W", ">Q <Wdd >d", ">Q <Wdd >d <d"] {
            is_busy(streams);
            assert!(after(streams).streams() && !after(streams).owes_answer(), "{streams}");
            assert!(!after(streams).takes_data(), "{streams}");
        }
        // The client ends it: PostgreSQL still sends what it had, its own end, and the answer.
        is_busy(">Q <W >dc");
        assert!(after(">Q <W >dc").owes_answer());
        is_idle(">Q <Wdd >dc <ddcC <ZI");
        is_idle(">Q <Wdd >dcQ <ddcC <ZI <TDC <ZI");
        // PostgreSQL ends it, at the end of a timeline: then it is the client's turn.
        is_busy(">Q <Wddc");
        is_idle(">Q <Wddc >c <TDCC <ZI");
        // An error ends both directions; what the client sent before it knew is not answered.
        is_busy(">Q <Wdd <E");
        is_idle(">Q <Wdd <E >dd <ZI >dc");
        is_idle(">Q <Wdd <E >c <ZI");
        is_idle(">Q <E <ZI");
        is_busy(">Q <W >Q");
    }

    #[test]
    fn where_the_count_is_in_doubt_the_session_stays_busy() {
        // Whether the first Sync is answered depends on when the COPY failed.
        is_busy(">PBDES <12nG >d <E >cS <ZI");
        is_busy(">Q <G >Q <E <ZI <ZI");
        is_busy("<ZI");
        is_busy(&(">Q >S ".repeat(RUNS_MAX) + &"<ZI ".repeat(2 * RUNS_MAX)));
    }

    #[test]
    fn a_long_pipeline_costs_no_memory() {
        let mut exchange = after("");
        for _ in 0..100_000 {
            exchange.sent(b'S');
        }
        assert_eq!(exchange.waiting.len(), 1);
        for _ in 0..100_000 {
            assert!(!exchange.is_idle());
            exchange.ready(b'I');
        }
        assert!(exchange.is_idle());
    }
}
