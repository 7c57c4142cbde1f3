//! Logins: whom the account lets in, and what the others read.

use super::*;

#[test]
fn a_code_logs_in_once_and_so_does_none_that_is_older() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let alice = room.look(&token).await;
        let (early, code) = (alice.code_after(&room, -1), alice.code(&room));
        room.ask(accept(&token, &code)).await.unwrap();
        for used in [&code, &early] {
            let answer = room.log_in("alice", PASSWORD, used).await;
            room.refused(&answer, "used before");
        }
        let next = alice.code_after(&room, 1);
        room.log_in("alice", PASSWORD, &next).await.unwrap();
        let answer = room.log_in("alice", PASSWORD, &next).await;
        room.refused(&answer, "used before");
        let answer = room.log_in("alice", PASSWORD, &alice.code_after(&room, 2)).await;
        room.refused(&answer, "code is wrong");
    });
}

#[test]
fn of_logins_that_race_with_one_code_one_wins() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let code = alice.code(&room);
        let tries = (0..4).map(|number| {
            let address = room.address(number);
            let message = log_in("alice", PASSWORD, &code, &entropy::bytes());
            async move { ask(&address, message).await }
        });
        let answers = join_all(tries).await;
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(won, 1, "{answers:?}");
    });
}

#[test]
fn every_login_that_is_refused_reads_the_same_and_the_audit_log_knows_why() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let code = alice.code(&room);
        let long = "x".repeat(1_000_000);
        for (name, password, code, why) in [
            ("alice", "wrong password", code.as_str(), "password is wrong"),
            ("alice", PASSWORD, "000000", "code is wrong"),
            ("alice", &long, &code, "password is wrong"),
            ("bob", PASSWORD, &code, "no password"),
            ("carol", PASSWORD, &code, "no such user"),
            ("Alice", PASSWORD, &code, "no such user"),
            ("alice\n", PASSWORD, &code, "not one of a user"),
            (&long, PASSWORD, &code, "not one of a user"),
        ] {
            let answer = room.log_in(name, password, code).await;
            room.refused(&answer, why);
            assert!(room.events("T1000W").pop().unwrap()["user"].as_str().unwrap().len() <= 255);
        }
        room.log_in("alice", PASSWORD, &code).await.unwrap();
    });
}

#[test]
fn a_login_of_somebody_unknown_or_locked_waits_for_a_hash_like_every_other() {
    in_a_room(|room| async move {
        let books = room.books();
        room.join("alice").await;
        for _ in 0..FAILURES_MAX {
            room.log_in("alice", "wrong password", "").await.unwrap_err();
        }
        for name in ["alice", "bob", "carol", "not a name"] {
            let held = books
                .hasher
                .cores
                .clone()
                .acquire_many_owned(room.cores())
                .await
                .unwrap();
            let mut login = Box::pin(books.clone().log_in(log_in(name, PASSWORD, "000000", &[192, 0, 2, 1])));
            let waited = tokio::time::timeout(Duration::from_millis(200), &mut login).await;
            assert!(waited.is_err(), "{name} was answered without a hash");
            drop(held);
            assert_eq!(login.await, Err(LoginRefused::Denied));
        }
    });
}

#[test]
fn five_failures_lock_an_account_for_twenty_minutes_also_for_the_right_password() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        for _ in 0..FAILURES_MAX - 1 {
            let answer = room.log_in("alice", "wrong password", "000000").await;
            room.refused(&answer, "password is wrong");
        }
        room.log_in("alice", PASSWORD, &alice.code(&room)).await.unwrap();
        for _ in 0..FAILURES_MAX {
            let answer = room.log_in("alice", "wrong password", "000000").await;
            room.refused(&answer, "password is wrong");
        }
        let until = room.clock.now() + LOCKED_FOR;
        assert_eq!(room.status("alice").await.locked_until, Some(until));
        room.pass(LOCKED_FOR - Duration::from_micros(1));
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "locked until");
        room.pass(Duration::from_micros(1));
        room.log_in("alice", PASSWORD, &alice.code(&room)).await.unwrap();
    });
}

#[test]
fn guesses_that_come_at_once_get_no_more_tries_than_guesses_in_a_row() {
    in_a_room(|room| async move {
        room.join("alice").await;
        let guesses = (0..20).map(|number| {
            let address = room.address(number);
            let message = log_in("alice", "wrong password", "000000", &entropy::bytes());
            async move { ask(&address, message).await }
        });
        assert!(join_all(guesses).await.iter().all(Result::is_err));
        let events = room.events("T1000W");
        let tried = events
            .iter()
            .filter(|event| event["error"] == "the password is wrong")
            .count();
        assert_eq!(tried, FAILURES_MAX, "{events:?}");
    });
}

#[test]
fn a_login_that_finds_no_room_is_told_to_wait_and_counts_as_no_failure() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let books = room.books();
        let taken: Vec<_> = std::iter::repeat_with(|| books.hasher.enter())
            .take_while(Result::is_ok)
            .collect();
        for _ in 0..=FAILURES_MAX {
            let login = books
                .clone()
                .log_in(log_in("alice", PASSWORD, "000000", &[192, 0, 2, 1]));
            assert_eq!(login.await, Err(LoginRefused::TooMany));
        }
        drop(taken);
        let login = log_in("alice", PASSWORD, &alice.code(&room), &[192, 0, 2, 1]);
        assert_eq!(books.log_in(login).await, Ok(person("alice")));
    });
}

#[test]
fn an_address_that_tries_too_often_is_told_to_wait_and_others_are_not() {
    in_a_room(|room| async move {
        let busy = [192, 0, 2, 7];
        let mut refused = 0;
        for _ in 0..42 {
            let answer = room.ask(log_in("carol", PASSWORD, "000000", &busy)).await;
            refused += usize::from(answer == Err(LoginRefused::TooMany));
        }
        assert_eq!(refused, 2);
        let answer = room.ask(log_in("carol", PASSWORD, "000000", &[192, 0, 2, 8])).await;
        assert_eq!(answer, Err(LoginRefused::Denied));
        let told = room.events("T1000W");
        let told = told
            .iter()
            .filter(|e| e["error"].as_str().unwrap().contains("too often"));
        assert_eq!(told.count(), 1);
    });
}

#[test]
fn somebody_who_was_removed_cannot_log_in_and_comes_back_without_the_old_password() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        room.parts.published.send_replace(published(&["bob"]));
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "no such user");
        room.parts.published.send_replace(published(&["alice", "bob"]));
        room.invite("alice", InviteKind::Invite).await;
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "no password");
    });
}

#[test]
fn a_login_whose_password_is_reset_meanwhile_is_refused() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let books = room.books();
        let held = books
            .hasher
            .cores
            .clone()
            .acquire_many_owned(room.cores())
            .await
            .unwrap();
        let login = log_in("alice", PASSWORD, &alice.code(&room), &[192, 0, 2, 1]);
        let mut login = Box::pin(books.clone().log_in(login));
        let waited = tokio::time::timeout(Duration::from_millis(200), &mut login).await;
        assert!(waited.is_err(), "it needs a hash");
        room.invite("alice", InviteKind::Reset).await;
        drop(held);
        room.refused(&login.await, "reset meanwhile");
    });
}
