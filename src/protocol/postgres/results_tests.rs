//! Which result is whose: what clients do to pipelines, errors and COPY, and what hostile ones try.

use super::answers::AnswerReader;
use super::frames::{Direction, FrameWalker};
use super::results::*;
use super::statement_tests::frame;
use super::statements::{Asked, StatementTap};

/// A session, fed with the bytes of both directions as the taps of a relay are.
pub(super) struct Played {
    statements: StatementTap,
    number: u64,
    frames: FrameWalker,
    reader: AnswerReader,
    pub(super) results: Results,
    noted: Vec<String>,
}

impl Played {
    pub(super) fn begin() -> Self {
        let mut played = Self {
            statements: StatementTap::new(),
            number: 0,
            frames: FrameWalker::new(Direction::Backend),
            reader: AnswerReader::default(),
            results: Results::default(),
            noted: Vec::new(),
        };
        played.server(&ready());
        played
    }

    pub(super) fn client(&mut self, bytes: &[u8]) {
        let (results, number) = (&mut self.results, &mut self.number);
        let fed = self.statements.feed(bytes, &mut |asked| {
            if let Asked::Statement(statement) = &asked {
                *number += u64::from(statement.place().0);
            }
            results.asked(*number, &asked);
        });
        fed.expect("sound");
        self.results.passed();
    }

    pub(super) fn server(&mut self, bytes: &[u8]) {
        let Self {
            statements,
            frames,
            reader,
            results,
            noted,
            ..
        } = self;
        let walked = frames.walk(bytes, |piece| {
            let Some(answer) = reader.read(&piece) else { return };
            if results.answered(&answer, reader.take_copied(), statements.copied()) {
                if let Some(batch) = results.batch() {
                    noted.push(told(batch));
                }
                results.noted();
            }
        });
        walked.expect("sound");
    }

    /// What was noted since the last time, each ReadyForQuery apart.
    pub(super) fn noted(&mut self) -> Vec<String> {
        std::mem::take(&mut self.noted)
    }
}

/// `1 SELECT 3; 4 (of 2) INSERT 1; 5 failed 42P01 at parse, 2 skipped`.
fn told(batch: Batch<'_>) -> String {
    let each = batch.outcomes.iter().map(|outcome| {
        let mut text = outcome.request.map_or("-".to_owned(), |number| number.to_string());
        if let Some(parsed) = outcome.parsed {
            text += &format!(" (of {parsed})");
        }
        text += &match outcome.ended {
            Ended::Completed(tag) => format!(" {}", tag.as_ref().map_or("done", |tag| tag.as_str())),
            Ended::Empty => " empty".to_owned(),
            Ended::Suspended => " suspended".to_owned(),
            Ended::Failed { at, sqlstate, .. } => format!(
                " failed {} at {}",
                sqlstate.as_ref().map_or("?", |code| code.as_str()),
                at.label()
            ),
        };
        if let Some(rows) = outcome.rows {
            text += &format!(" {rows}");
        }
        if let Some(copied) = outcome.copied {
            text += &format!(" {:?} {}/{}", copied.direction, copied.bytes_in, copied.bytes_out);
        }
        text
    });
    let mut text = each.collect::<Vec<_>>().join("; ");
    if batch.skipped > 0 {
        text += &format!(", {} skipped", batch.skipped);
    }
    if batch.in_doubt {
        text += ", in doubt";
    }
    text
}

pub(super) fn ready() -> Vec<u8> {
    frame(b'Z', b"I")
}

fn in_transaction() -> Vec<u8> {
    frame(b'Z', b"T")
}

pub(super) fn query(text: &str) -> Vec<u8> {
    frame(b'Q', format!("{text}\0").as_bytes())
}

pub(super) fn parse(name: &str, text: &str) -> Vec<u8> {
    frame(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

pub(super) fn bind(portal: &str, statement: &str) -> Vec<u8> {
    frame(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

pub(super) fn describe() -> Vec<u8> {
    frame(b'D', b"P\0")
}

pub(super) fn execute(portal: &str) -> Vec<u8> {
    frame(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

pub(super) fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

pub(super) fn data(bytes: &str) -> Vec<u8> {
    frame(b'd', bytes.as_bytes())
}

pub(super) fn copy_done() -> Vec<u8> {
    frame(b'c', b"")
}

pub(super) fn done(tag: &str) -> Vec<u8> {
    frame(b'C', format!("{tag}\0").as_bytes())
}

pub(super) fn error(sqlstate: &str) -> Vec<u8> {
    frame(b'E', format!("SERROR\0VERROR\0C{sqlstate}\0Mno\0\0").as_bytes())
}

/// ParseComplete and BindComplete.
pub(super) fn parsed_and_bound() -> Vec<u8> {
    [frame(b'1', b""), frame(b'2', b"")].concat()
}

/// What the client sends, and what PostgreSQL answers.
type Exchanged<'a> = (&'a [Vec<u8>], &'a [Vec<u8>]);

fn play(script: &[Exchanged<'_>]) -> Vec<String> {
    let mut played = Played::begin();
    for (client, server) in script {
        played.client(&client.concat());
        played.server(&server.concat());
    }
    played.noted()
}

#[test]
fn each_statement_of_a_query_has_its_result_and_an_error_ends_them() {
    let noted = play(&[
        (&[query("select 1")], &[frame(b'T', b"\0\0"), done("SELECT 1"), ready()]),
        (
            &[query("insert; update; drop")],
            &[done("INSERT 0 5"), done("UPDATE 2"), error("42P01"), ready()],
        ),
        (&[query("")], &[frame(b'I', b""), ready()]),
    ]);
    assert_eq!(
        noted,
        [
            "1 SELECT 1",
            "2 INSERT 5; 2 UPDATE 2; 2 failed 42P01 at query",
            "3 empty"
        ]
    );
}

#[test]
fn a_pipeline_gives_each_execute_its_own_result_and_the_text_that_it_ran() {
    let first = [parse("", "a"), bind("", ""), describe(), execute(""), sync()].concat();
    let second = [
        parse("s", "b"),
        bind("p", "s"),
        execute("p"),
        bind("", "s"),
        execute(""),
    ]
    .concat();
    let noted = play(&[(
        &[first, second, sync(), query("select 1")],
        &[
            parsed_and_bound(),
            frame(b'n', b""),
            done("INSERT 0 1"),
            ready(),
            parsed_and_bound(),
            done("SELECT 7"),
            frame(b'2', b""),
            done("SELECT 8"),
            ready(),
            done("SELECT 1"),
            ready(),
        ],
    )]);
    assert_eq!(
        noted,
        [
            "3 (of 1) INSERT 1",
            "6 (of 4) SELECT 7; 8 (of 4) SELECT 8",
            "9 SELECT 1"
        ]
    );
}

#[test]
fn after_an_error_everything_up_to_the_sync_is_skipped_also_what_is_sent_later() {
    let group = [parse("", "a"), bind("", ""), execute("")].concat();
    let mut played = Played::begin();
    // The Query before the Sync is skipped, too.
    played.client(&[group.clone(), group.clone(), query("select 1")].concat());
    played.server(&[parsed_and_bound(), error("23505")].concat());
    played.client(&[group.clone(), sync()].concat());
    played.client(&[group, sync()].concat());
    played.server(&ready());
    played.server(&[parsed_and_bound(), done("SELECT 1"), ready()].concat());
    assert_eq!(
        played.noted(),
        ["3 (of 1) failed 23505 at execute, 7 skipped", "13 (of 11) SELECT 1"]
    );
}

#[test]
fn an_error_of_a_parse_a_describe_or_a_sync_says_where_it_was() {
    let noted = play(&[
        (&[parse("", "selec"), sync()], &[error("42601"), ready()]),
        (
            &[parse("", "a"), describe(), sync()],
            &[frame(b'1', b""), error("34000"), ready()],
        ),
        (
            &[parse("", "insert"), bind("", ""), execute(""), sync()],
            &[parsed_and_bound(), done("INSERT 0 1"), error("23503"), ready()],
        ),
        (&[query("select 1")], &[done("SELECT 1"), ready()]),
    ]);
    assert_eq!(
        noted,
        [
            "1 failed 42601 at parse",
            "- failed 34000 at describe",
            "5 (of 3) INSERT 1; - failed 23503 at sync",
            "6 SELECT 1"
        ]
    );
}

#[test]
fn a_function_call_and_a_portal_that_is_read_in_parts_have_results() {
    let row = || frame(b'D', b"\0\0");
    let noted = play(&[
        (
            &[frame(b'F', b"\0\0\x03\xe7\0\0\0\0\0\0")],
            &[frame(b'V', b"\xff\xff\xff\xff"), ready()],
        ),
        (
            &[parse("", "a"), bind("p", ""), execute("p"), execute("p"), sync()],
            &[
                parsed_and_bound(),
                row(),
                row(),
                frame(b's', b""),
                row(),
                done("SELECT 1"),
                in_transaction(),
            ],
        ),
    ]);
    assert_eq!(noted, ["1 done", "4 (of 2) suspended 2; 5 (of 2) SELECT 1"]);
}

#[test]
fn copy_in_out_and_both_say_their_rows_and_bytes() {
    let mut played = Played::begin();
    played.client(&query("copy t from stdin"));
    played.server(&frame(b'G', b"\0\0\0"));
    played.client(&[data("1\n"), data("22\n"), copy_done()].concat());
    played.server(&[done("COPY 2"), ready()].concat());
    played.client(&query("copy t to stdout"));
    played.server(&[frame(b'H', b"\0\0\0"), data("1\n"), data("22\n"), copy_done()].concat());
    played.server(&[done("COPY 2"), ready()].concat());
    played.client(&query("START_REPLICATION"));
    played.server(&[frame(b'W', b"\0\0\0"), data("wal")].concat());
    played.client(&[data("ok"), copy_done()].concat());
    played.server(&[copy_done(), done("START_STREAMING"), ready()].concat());
    assert_eq!(
        played.noted(),
        ["1 COPY 2 In 5/0", "2 COPY 2 Out 0/5", "3 START_STREAMING Both 2/3"]
    );
}

#[test]
fn a_copy_that_fails_or_is_given_up_says_what_was_sent() {
    let mut played = Played::begin();
    played.client(&query("copy t from stdin"));
    played.server(&frame(b'G', b"\0\0\0"));
    played.client(&data("bad\n"));
    played.server(&[error("22P02"), ready()].concat());
    // The client hears of it later.
    played.client(&[data("more\n"), copy_done(), query("copy t from stdin")].concat());
    played.server(&frame(b'G', b"\0\0\0"));
    played.client(&[data("1\n"), frame(b'f', b"enough\0")].concat());
    played.server(&[error("57014"), ready()].concat());
    played.client(&query("select 1"));
    played.server(&[done("SELECT 1"), ready()].concat());
    assert_eq!(
        played.noted(),
        [
            "1 failed 22P02 at query In 4/0",
            "2 failed 57014 at query In 2/0",
            "3 SELECT 1"
        ]
    );
}

#[test]
fn a_copy_of_the_extended_protocol_ignores_its_syncs_and_takes_data_that_was_sent_ahead() {
    let group = [parse("", "copy"), bind("", ""), execute("")].concat();
    let mut played = Played::begin();
    // As libpq does.
    played.client(&[group.clone(), sync()].concat());
    played.server(&[parsed_and_bound(), frame(b'G', b"\0\0\0")].concat());
    played.client(&[data("1\n"), copy_done(), sync()].concat());
    played.server(&[done("COPY 1"), ready()].concat());
    // Without waiting for anything.
    played.client(&[group, data("22\n"), copy_done(), sync(), query("select 1")].concat());
    played.server(&[parsed_and_bound(), frame(b'G', b"\0\0\0"), done("COPY 1"), ready()].concat());
    played.server(&[done("SELECT 1"), ready()].concat());
    assert_eq!(
        played.noted(),
        ["3 (of 1) COPY 1 In 2/0", "6 (of 4) COPY 1 In 3/0", "7 SELECT 1"]
    );
}

#[test]
fn whether_a_failed_copy_had_ignored_a_sync_does_not_move_later_results() {
    let group = [parse("", "copy"), bind("", ""), execute(""), sync()].concat();
    for answered_twice in [false, true] {
        let mut played = Played::begin();
        played.client(&group);
        played.server(&[parsed_and_bound(), frame(b'G', b"\0\0\0"), error("57014")].concat());
        played.client(&[data("1\n"), copy_done(), sync(), query("select 1")].concat());
        played.server(&ready());
        if answered_twice {
            played.server(&ready());
        }
        played.server(&[done("SELECT 1"), ready()].concat());
        assert_eq!(
            played.noted(),
            ["3 (of 1) failed 57014 at execute In 0/0", "4 SELECT 1"],
            "{answered_twice}"
        );
    }
}

#[test]
fn a_request_inside_of_a_copy_puts_the_results_in_doubt() {
    let mut played = Played::begin();
    played.client(&query("copy t from stdin"));
    played.server(&frame(b'G', b"\0\0\0"));
    played.client(&query("select 1"));
    played.server(&[error("08P01"), ready()].concat());
    let noted = played.noted();
    assert!(noted[0].ends_with("in doubt"), "{noted:?}");
}

#[test]
fn the_text_of_an_execute_is_that_of_the_parse_that_made_its_statement() {
    let run = |statement| [bind("", statement), execute(""), sync()].concat();
    let ran = || [frame(b'2', b""), done("SELECT 1"), ready()].concat();
    // All of it is sent at once: the second Parse of the name fails, and the first is what runs.
    let script = [
        parse("s", "evil"),
        sync(),
        parse("s", "harmless"),
        sync(),
        run("s"),
        query("deallocate s; prepare s as worse"),
        run("s"),
        parse("t", "a"),
        frame(b'C', b"St\0"),
        parse("t", "b"),
        run("t"),
    ];
    let answers = [
        [frame(b'1', b""), ready()].concat(),
        [error("42P05"), ready()].concat(),
        ran(),
        [done("DEALLOCATE"), done("PREPARE"), ready()].concat(),
        ran(),
        [frame(b'1', b""), frame(b'3', b""), frame(b'1', b"")].concat(),
        ran(),
    ];
    assert_eq!(
        play(&[(&script, &answers)]),
        [
            "2 failed 42P05 at parse",
            "4 (of 1) SELECT 1",
            "5 DEALLOCATE; 5 PREPARE",
            "7 SELECT 1",
            "12 (of 10) SELECT 1"
        ]
    );
}

#[test]
fn a_query_and_the_end_of_a_transaction_take_unnamed_statements_and_portals_along() {
    let noted = play(&[
        (
            &[parse("", "a"), bind("p", ""), sync()],
            &[parsed_and_bound(), in_transaction()],
        ),
        (&[execute("p"), sync()], &[done("SELECT 1"), ready()]),
        (&[execute("p"), sync()], &[error("34000"), ready()]),
        (&[query("select 1")], &[done("SELECT 1"), ready()]),
        (&[bind("", ""), execute(""), sync()], &[error("26000"), ready()]),
    ]);
    assert_eq!(
        noted,
        [
            "3 (of 1) SELECT 1",
            "4 failed 34000 at execute",
            "5 SELECT 1",
            "6 failed 26000 at bind, 1 skipped"
        ]
    );
}

#[test]
fn an_error_that_answers_nothing_is_nobodys_result_and_a_fatal_one_is_noted_at_once() {
    let mut played = Played::begin();
    let fatal = frame(b'E', b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0");
    played.server(&fatal);
    assert_eq!(played.noted(), [""; 0]);
    let mut played = Played::begin();
    played.client(&query("select pg_sleep(60)"));
    played.server(&fatal);
    assert_eq!(played.noted(), ["1 failed 57P01 at query"]);
}

#[test]
fn answers_that_nobody_asked_for_put_the_results_in_doubt_and_hold_nobody_back() {
    let mut played = Played::begin();
    for _ in 0..3 * WAITING_MAX {
        played.client(&query("a"));
        played.server(&[frame(b'1', b""), ready()].concat());
        assert!(!played.results.is_full());
    }
    played.client(&query("a"));
    played.server(&[done("SELECT 1"), ready()].concat());
    assert!(played.noted().iter().all(|text| text.ends_with("in doubt")));
}

#[test]
fn ten_thousand_pipelined_statements_cost_little_memory_and_a_client_that_reads_no_answer_is_held_back() {
    let group = [parse("", "a"), bind("", ""), describe(), execute(""), sync()].concat();
    let answer = [parsed_and_bound(), frame(b'n', b""), done("INSERT 0 1"), ready()].concat();
    let mut played = Played::begin();
    let (mut sent, mut most) = (0, 0);
    while sent < 10_000 || !played.results.is_answered() {
        if sent < 10_000 && !played.results.is_full() {
            played.client(&group);
            sent += 1;
        } else {
            played.server(&answer);
        }
        most = most.max(played.results.retained_bytes());
    }
    assert!(most < 512 * 1024, "{most}");
    assert_eq!(played.noted().len(), 10_000);
    assert!(
        played.results.retained_bytes() < 4096,
        "{}",
        played.results.retained_bytes()
    );
}

#[test]
fn a_long_batch_is_noted_in_events_of_bounded_size() {
    let mut played = Played::begin();
    played.client(&query("many"));
    for _ in 0..2500 {
        played.server(&done("SELECT 1"));
    }
    played.server(&ready());
    let noted = played.noted();
    let sizes: Vec<_> = noted.iter().map(|text| text.split(';').count()).collect();
    assert_eq!(sizes, [BATCH_MAX, BATCH_MAX, 500]);
}

#[test]
fn of_more_names_than_are_known_an_execute_does_not_say_what_it_ran() {
    let mut played = Played::begin();
    for number in 0..NAMES_MAX + 10 {
        played.client(&[parse(&format!("s{number}"), "a"), sync()].concat());
        played.server(&[frame(b'1', b""), ready()].concat());
    }
    played.client(&[bind("", &format!("s{}", NAMES_MAX + 5)), execute(""), sync()].concat());
    played.server(&[frame(b'2', b""), done("SELECT 1"), ready()].concat());
    assert_eq!(played.noted(), [format!("{} SELECT 1", NAMES_MAX + 12)]);
    assert!(played.results.retained_bytes() < 512 * 1024);
}

#[test]
fn a_sync_that_a_failed_copy_had_not_ignored_ends_what_is_passed_over() {
    let noted = play(&[
        (
            &[parse("", "copy t from stdin"), bind("", ""), execute(""), sync()],
            &[parsed_and_bound(), frame(b'G', b"\0\0\0")],
        ),
        // In one write: PostgreSQL fails on the row, and the Sync is the one that it looks for.
        (&[data("bad"), sync()], &[error("22P02"), ready()]),
        (&[query("delete from t")], &[done("DELETE 3"), ready()]),
        (&[query("select 1")], &[done("SELECT 1"), ready()]),
    ]);
    assert_eq!(
        noted,
        ["3 (of 1) failed 22P02 at execute In 3/0", "4 DELETE 3", "5 SELECT 1"]
    );
}

/// PostgreSQL looks at 63 bytes of a name, converted from the client's encoding, which SQL may change.
#[test]
fn a_name_that_postgresql_may_take_for_another_has_no_text() {
    let (name, same, also_same) = ("a".repeat(63), "a".repeat(63) + "x", "a".repeat(63) + "y");
    let runs = |statement: &str| [bind("", statement), execute(""), sync()].concat();
    let ran = || [frame(b'2', b""), done("SELECT 1"), ready()].concat();
    let close = |name: &str| frame(b'C', format!("S{name}\0").as_bytes());
    let accented = frame(b'P', b"\xe9\0select 1\0\0\0");
    let runs_accented = [frame(b'B', b"\0\xe9\0\0\0\0\0\0\0"), execute(""), sync()].concat();
    let noted = play(&[
        (&[parse(&name, "select 1"), runs(&name)], &[frame(b'1', b""), ran()]),
        (&[runs(&same)], &[ran()]),
        (
            &[close(&same), parse(&also_same, "delete from t"), runs(&name)],
            &[frame(b'3', b""), frame(b'1', b""), ran()],
        ),
        (&[accented, runs_accented], &[frame(b'1', b""), ran()]),
    ]);
    assert_eq!(noted, ["3 (of 1) SELECT 1", "5 SELECT 1", "9 SELECT 1", "12 SELECT 1"]);
}

#[test]
fn ends_of_no_copy_are_never_answered_and_hold_nobody_back() {
    let mut played = Played::begin();
    played.client(&parse("", "select 1"));
    played.client(&copy_done().repeat(WAITING_MAX + 1000));
    assert!(!played.results.is_full());
    played.client(&sync());
    played.server(&[frame(b'1', b""), ready()].concat());
    assert!(played.results.is_answered());
}
