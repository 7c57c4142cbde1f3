//! What holds for the results of every session: who pipelines, and how the network cuts, changes nothing; no answers panic or hoard.

use super::results_tests::*;
use super::statement_tests::frame;
use proptest::collection::vec;
use proptest::prelude::*;

/// What a client sends, and what PostgreSQL answers.
fn exchange() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let group = || [parse("", "a"), bind("", ""), describe(), execute(""), sync()].concat();
    prop_oneof![
        Just((query("a"), [done("SELECT 3"), done("INSERT 0 1"), ready()].concat())),
        Just((query("bad"), [error("42P01"), ready()].concat())),
        Just((
            group(),
            [parsed_and_bound(), frame(b'T', b"\0\0"), done("SELECT 1"), ready()].concat()
        )),
        Just((group(), [error("42601"), ready()].concat())),
        Just((group(), [parsed_and_bound(), error("34000"), ready()].concat())),
        Just((
            [query("copy"), data("12345"), copy_done()].concat(),
            [frame(b'G', b"\0\0\0"), done("COPY 1"), ready()].concat()
        )),
        Just((
            query("copy"),
            [
                frame(b'H', b"\0\0\0"),
                data("123"),
                copy_done(),
                done("COPY 1"),
                ready()
            ]
            .concat()
        )),
        Just((
            frame(b'F', b"\0\0\x03\xe7\0\0\0\0\0\0"),
            [frame(b'V', b"\xff\xff\xff\xff"), ready()].concat()
        )),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn neither_pipelining_nor_the_cuts_of_the_network_change_which_result_is_whose(
        exchanges in vec(exchange(), 1..12),
        size in 1..40_usize,
    ) {
        let mut by_turns = Played::begin();
        let mut cut = Played::begin();
        for (client, server) in &exchanges {
            by_turns.client(client);
            by_turns.server(server);
            client.chunks(size).for_each(|chunk| cut.client(chunk));
            server.chunks(size).for_each(|chunk| cut.server(chunk));
        }
        let mut at_once = Played::begin();
        exchanges.iter().for_each(|(client, _)| at_once.client(client));
        exchanges.iter().for_each(|(_, server)| at_once.server(server));
        let noted = by_turns.noted();
        prop_assert_eq!(&cut.noted(), &noted);
        prop_assert_eq!(&at_once.noted(), &noted);
        prop_assert_eq!(noted.len(), exchanges.len());
    }

    #[test]
    fn arbitrary_answers_never_panic_and_never_hoard(
        events in vec((any::<bool>(), prop::sample::select(b"123TnCIsVEGHWZdcDQPBESXFH".to_vec())), 0..400),
    ) {
        let mut played = Played::begin();
        for (from_client, message_type) in events {
            let client = match message_type {
                b'Q' => query("a"),
                b'P' => parse("s", "a"),
                b'B' => bind("p", "s"),
                b'E' => execute("p"),
                b'D' => describe(),
                b'F' => frame(b'F', b"\0\0\x03\xe7\0\0\0\0\0\0"),
                b'd' => data("1"),
                b'c' => copy_done(),
                _ => sync(),
            };
            let server = match message_type {
                b'Z' => ready(),
                b'E' => error("42P01"),
                b'C' => done("SELECT 1"),
                other => frame(other, b""),
            };
            if from_client {
                played.client(&client);
            } else {
                played.server(&server);
            }
        }
        prop_assert!(played.results.retained_bytes() < 256 * 1024);
    }
}
