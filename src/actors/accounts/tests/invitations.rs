//! Links: what makes one, who may use it, and how often.

use super::*;

#[test]
fn an_invitation_is_looked_at_often_and_accepted_once_and_then_the_person_logs_in() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        assert!(token.expose().len() == 32 && token.expose().bytes().all(|b| b.is_ascii_hexdigit()));
        let alice = room.look(&token).await;
        assert_eq!(alice.secret.bytes(), room.look(&token).await.secret.bytes());
        assert_eq!(room.status("alice").await.invited_until, Some(START + INVITE_TTL));
        room.ask(accept(&token, &alice.code(&room))).await.unwrap();
        let status = room.status("alice").await;
        assert!(status.has_password && status.invited_until.is_none());
        let again = room.ask(accept(&token, &alice.code_after(&room, 1))).await.unwrap_err();
        assert!(again.to_string().contains("has been used"), "{again}");
        let shown = room.ask(LookAtInvite { token }).await;
        assert!(matches!(shown, Err(AccountError::InviteUsed)), "{shown:?}");
        room.pass(Duration::from_secs(60));
        assert_eq!(
            room.log_in("alice", PASSWORD, &alice.code(&room)).await,
            Ok(person("alice"))
        );
        for (code, user) in [
            ("T6000I", "test"),
            ("T1005I", "alice"),
            ("T1006I", "alice"),
            ("T1000I", "alice"),
        ] {
            assert_eq!(room.events(code)[0]["user"], user, "{code}");
        }
        assert_eq!(room.events("T1005I")[0]["addr.remote"], "192.0.2.1:5000");
    });
}

#[test]
fn the_store_has_neither_the_token_nor_the_password_nor_the_secret_of_the_codes() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let shown = room.ask(LookAtInvite { token: token.clone() }).await.unwrap();
        assert!(!format!("{shown:?}").contains(shown.otp_secret.expose()));
        let before = room.parts.store.range("/", 100).await.unwrap();
        let alice = room.look(&token).await;
        room.ask(accept(&token, &alice.code(&room))).await.unwrap();
        for item in before
            .into_iter()
            .chain(room.parts.store.range("/", 100).await.unwrap())
        {
            let text = item.key.clone() + &String::from_utf8_lossy(&item.value);
            for secret in [token.expose().as_str(), PASSWORD, shown.otp_secret.expose()] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    });
}

#[test]
fn of_those_who_race_for_an_invitation_one_wins() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let alice = room.look(&token).await;
        let code = alice.code(&room);
        let tries = (0..12).map(|number| {
            let mut message = accept(&token, &code);
            message.password = secret(format!("{PASSWORD} {number}"));
            let address = room.address(number);
            async move { ask(&address, message).await }
        });
        let answers = join_all(tries).await;
        let winners: Vec<usize> = (0..12).filter(|number| answers[*number].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        for lost in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(matches!(lost, AccountError::InviteUsed), "{lost:?}");
        }
        room.pass(Duration::from_secs(60));
        let password = format!("{PASSWORD} {}", winners[0]);
        room.log_in("alice", &password, &alice.code(&room)).await.unwrap();
    });
}

#[test]
fn an_invitation_needs_a_long_password_and_the_code_and_is_not_used_up_by_mistakes() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let alice = room.look(&token).await;
        let mut short = accept(&token, &alice.code(&room));
        short.password = secret("elevenchars");
        let said = room.ask(short).await.unwrap_err().to_string();
        assert!(said.contains("at least 12 characters"), "{said}");
        for code in ["", "123", &alice.code_after(&room, 3), &alice.code_after(&room, -2)] {
            let wrong = room.ask(accept(&token, code)).await;
            assert!(matches!(wrong, Err(AccountError::WrongCode)), "{wrong:?}");
        }
        room.ask(accept(&token, &alice.code(&room))).await.unwrap();
    });
}

#[test]
fn an_invitation_ends_at_its_time_and_another_text_is_none() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        room.pass(INVITE_TTL - Duration::from_micros(1));
        let alice = room.look(&token).await;
        room.pass(Duration::from_micros(1));
        let said = room.ask(accept(&token, &alice.code(&room))).await.unwrap_err();
        assert!(matches!(said, AccountError::InviteExpired), "{said}");
        assert_eq!(room.status("alice").await.invited_until, None);
        for token in [String::new(), "0".repeat(32), "ä".repeat(16), "x".repeat(100_000)] {
            let said = room.ask(LookAtInvite { token: secret(token) }).await.unwrap_err();
            assert!(matches!(said, AccountError::NoInvite), "{said}");
        }
    });
}

#[test]
fn an_invitation_is_for_somebody_who_exists_and_for_a_time_within_the_limits() {
    in_a_room(|room| async move {
        let said = room
            .ask(invite("carol", InviteKind::Invite, INVITE_TTL))
            .await
            .unwrap_err();
        assert!(said.to_string().contains("no user \"carol\""), "{said}");
        for (kind, ttl, good) in [
            (InviteKind::Invite, INVITE_TTL_MAX, true),
            (InviteKind::Invite, INVITE_TTL_MAX + Duration::from_secs(1), false),
            (InviteKind::Reset, RESET_TTL_MAX, true),
            (InviteKind::Reset, RESET_TTL_MAX + Duration::from_secs(1), false),
            (InviteKind::Reset, Duration::ZERO, false),
        ] {
            let made = room.ask(invite("alice", kind, ttl)).await;
            assert_eq!(made.is_ok(), good, "{kind:?} {ttl:?}");
        }
    });
}

#[test]
fn a_reset_takes_the_password_the_older_link_and_the_lock_away() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        for _ in 0..FAILURES_MAX {
            room.log_in("alice", "wrong password", "000000").await.unwrap_err();
        }
        assert!(room.status("alice").await.locked_until.is_some());
        let first = room.invite("alice", InviteKind::Reset).await;
        let second = room.invite("alice", InviteKind::Reset).await;
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "no password");
        let old = room.ask(LookAtInvite { token: first }).await;
        assert!(matches!(old, Err(AccountError::InviteUsed)), "{old:?}");
        let anew = room.look(&second).await;
        assert_ne!(anew.secret.bytes(), alice.secret.bytes());
        room.ask(accept(&second, &anew.code(&room))).await.unwrap();
        assert_eq!(room.status("alice").await.locked_until, None);
        room.pass(Duration::from_secs(60));
        room.log_in("alice", PASSWORD, &anew.code(&room)).await.unwrap();
    });
}

#[test]
fn an_account_that_is_forgotten_has_no_password_and_no_link() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let token = room.invite("bob", InviteKind::Invite).await;
        for name in ["alice", "bob", "carol"] {
            let person = person(name);
            room.ask(ForgetAccount { person }).await.unwrap();
            assert!(!room.status(name).await.has_password);
        }
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        room.refused(&answer, "no password");
        let shown = room.ask(LookAtInvite { token }).await;
        assert!(matches!(shown, Err(AccountError::NoInvite)), "{shown:?}");
        let left = room.parts.store.range("/account/", 10).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_link_that_is_replaced_while_somebody_accepts_it_sets_nothing() {
    in_a_room(|room| async move {
        let token = room.invite("alice", InviteKind::Invite).await;
        let alice = room.look(&token).await;
        let books = room.books();
        let held = books
            .hasher
            .cores
            .clone()
            .acquire_many_owned(room.cores())
            .await
            .unwrap();
        let mut accepting = Box::pin(books.clone().accept(accept(&token, &alice.code(&room))));
        let waited = tokio::time::timeout(Duration::from_millis(200), &mut accepting).await;
        assert!(waited.is_err(), "it needs a hash");
        room.invite("alice", InviteKind::Reset).await;
        drop(held);
        let said = accepting.await;
        assert!(matches!(said, Err(AccountError::InviteUsed)), "{said:?}");
        assert!(!room.status("alice").await.has_password);
    });
}

#[test]
fn an_account_whose_record_is_damaged_is_repaired_by_a_reset() {
    in_a_room(|room| async move {
        let alice = room.join("alice").await;
        let damaged = room.parts.store.put("/account/alice", b"{".to_vec(), None);
        damaged.await.unwrap();
        let answer = room.log_in("alice", PASSWORD, &alice.code(&room)).await;
        assert_eq!(answer, Err(LoginRefused::Unavailable));
        room.join("alice").await;
        assert!(room.status("alice").await.has_password);
    });
}
