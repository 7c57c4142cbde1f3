//! Logins and the certificates that come of them.

use super::*;
use crate::model::Route;
use crate::pki::verify_person;

fn principal(room: &Room, answer: &Value) -> crate::model::Principal {
    verify_person(&chain_of(answer), &room.authorities.anchors(), room.clock.now()).unwrap()
}

#[test]
fn a_login_gives_a_certificate_with_the_second_factor_that_lives_as_the_roles_allow() {
    in_a_room(|room| async move {
        let secret = room.join("alice").await;
        let said = room.log_in("alice", PASSWORD, &room.code(&secret), None).await.ok();
        assert_eq!(
            (&said["user"], &said["cluster"]),
            (&json!("alice"), &json!("gate.example"))
        );
        assert_eq!(said["roles"], json!(["dev"]));
        let holder = principal(&room, &said);
        assert!(holder.mfa && holder.route.is_none() && holder.pinned_ip.is_none());
        let eight_hours = Duration::from_secs(8 * 3600);
        assert_eq!(holder.valid_until.as_secs(), (room.clock.now() + eight_hours).as_secs());
        let created = room.events("TC000I").pop().unwrap();
        assert!(
            created["user"] == "alice" && created["identity"]["mfa_verified"] == true,
            "{created}"
        );
        assert_eq!(room.events("T1000I").len(), 1, "one login");

        let me = room.get(&chain_of(&said), "/v1/me").await.ok();
        assert_eq!((&me["user"], &me["roles"]), (&json!("alice"), &json!(["dev"])));
        let seen = room.get(&chain_of(&said), "/v1/databases").await.ok();
        assert_eq!(seen["databases"].as_array().unwrap().len(), 1, "{seen}");
        let database = &seen["databases"][0];
        assert!(
            database["name"] == "orders" && database["allowed_users"] == json!(["app"]),
            "{seen}"
        );

        room.pass(Duration::from_secs(30)).await;
        let said = room.log_in("alice", PASSWORD, &room.code(&secret), Some(60)).await.ok();
        let ends = principal(&room, &said).valid_until;
        assert_eq!(ends.as_secs(), room.clock.now().as_secs() + 60);
    });
}

#[test]
fn every_login_that_fails_reads_the_same() {
    in_a_room(|room| async move {
        let secret = room.join("alice").await;
        let wrong = "invalid username, password or second factor";
        room.log_in("alice", "wrong password", &room.code(&secret), None)
            .await
            .refused(401, wrong);
        room.log_in("alice", PASSWORD, "000000", None).await.refused(401, wrong);
        room.log_in("nobody", PASSWORD, "000000", None)
            .await
            .refused(401, wrong);
        room.log_in("eve", PASSWORD, "000000", None).await.refused(401, wrong);
        for _ in 0..5 {
            room.log_in("alice", "wrong password", "000000", None)
                .await
                .refused(401, wrong);
        }
        room.log_in("alice", PASSWORD, &room.code(&secret), None)
            .await
            .refused(401, wrong);
        let failed = room.events("T1000W");
        assert!(failed.iter().all(|event| event["addr.remote"] == CLIENT), "{failed:?}");
    });
}

#[test]
fn a_lock_is_told_to_whoever_knows_the_password_and_a_login_from_elsewhere_is_pinned() {
    in_a_room(|room| async move {
        let secret = room.join("locked").await;
        let said = room.log_in("locked", PASSWORD, &room.code(&secret), None).await;
        said.refused(403, "ask the security team");
        let failed = room.events("T1000W");
        let told = |event: &Value| event["user"] == "locked" && event["error"].to_string().contains("lock targeting");
        assert!(failed.iter().any(told), "{failed:?}");
        assert!(!room.events("T1000I").iter().any(|event| event["user"] == "locked"));
        let locked = room.person("locked");
        room.get(&locked, "/v1/databases")
            .await
            .refused(403, "ask the security team");

        let secret = room.join("pat").await;
        let said = room.log_in("pat", PASSWORD, &room.code(&secret), None).await.ok();
        assert_eq!(principal(&room, &said).pinned_ip, Some("192.0.2.1".parse().unwrap()));
        let chain = chain_of(&said);
        room.get(&chain, "/v1/me").await.ok();
        let elsewhere = room
            .ask_from("192.0.2.9:5000", &chain, "GET", "/v1/me", &Value::Null)
            .await;
        elsewhere.refused(403, "pinned IP");
    });
}

#[test]
fn a_certificate_for_a_database_ends_with_the_login_and_opens_nothing_else() {
    in_a_room(|room| async move {
        let login = room.signed("alice", Duration::from_secs(600), |profile| profile.mfa = false);
        room.pass(Duration::from_secs(60)).await;
        let renew = |service: &str| {
            let route = json!({ "service": service, "db_user": "app", "db_name": null });
            json!({ "csr": room.csr(), "route": route })
        };
        let said = room
            .ask(&login, "POST", "/v1/certificates", &renew("orders"))
            .await
            .ok();
        let holder = principal(&room, &said);
        assert_eq!(
            holder.valid_until.as_secs(),
            START.as_secs() + 600,
            "no longer than the login"
        );
        assert!(!holder.mfa, "a second factor is not made up");
        let route = holder.route.expect("a route");
        assert_eq!(
            (route.service.as_str(), route.db_user.unwrap().as_str()),
            ("orders", "app")
        );
        for hidden in ["payroll", "nowhere"] {
            let said = room.ask(&login, "POST", "/v1/certificates", &renew(hidden)).await;
            said.refused(404, &format!("database {hidden:?} not found, use 'tsh db ls'"));
        }
        let bound = chain_of(&said);
        for (method, path) in [("POST", "/v1/certificates"), ("GET", "/v1/me"), ("GET", "/v1/status")] {
            let said = room.ask(&bound, method, path, &renew("orders")).await;
            said.refused(403, "this certificate is for database service \"orders\" only");
        }
    });
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_words() {
    in_a_room(|room| async move {
        room.get(&[], "/v1/me").await.refused(401, "log in first");
        room.get(&[], "/v1/status").await.refused(401, "log in first");
        let gone = room.person("gone");
        room.get(&gone, "/v1/me").await.refused(403, "no such user any more");
        let short = room.signed("alice", Duration::from_secs(60), |profile| {
            profile.route = Some(Route {
                service: "orders".parse().unwrap(),
                db_user: None,
                db_name: None,
            });
        });
        room.pass(Duration::from_secs(61)).await;
        room.get(&short, "/v1/me")
            .await
            .refused(401, "your certificate expired at");
        let alice = room.person("alice");
        room.get(&alice, "/v1/nowhere")
            .await
            .refused(404, "does not know this request");
    });
}

#[test]
fn a_renewal_keeps_the_pin_the_second_factor_and_the_end_and_is_for_the_pinned_address_only() {
    in_a_room(|room| async move {
        let here = "192.0.2.1".parse().unwrap();
        let login = room.signed("pat", Duration::from_secs(600), |profile| {
            profile.mfa = false;
            profile.pinned_ip = Some(here);
        });
        room.pass(Duration::from_secs(60)).await;
        let route = json!({ "service": "orders", "db_user": "app", "db_name": null });
        for route in [Value::Null, route] {
            let body = json!({ "csr": room.csr(), "route": route });
            let elsewhere = room
                .ask_from("192.0.2.9:5000", &login, "POST", "/v1/certificates", &body)
                .await;
            elsewhere.refused(403, "pinned IP");
            let said = room.ask(&login, "POST", "/v1/certificates", &body).await.ok();
            let holder = principal(&room, &said);
            assert_eq!((holder.pinned_ip, holder.mfa), (Some(here), false));
            assert_eq!(holder.valid_until.as_secs(), START.as_secs() + 600);
        }
        // Without a pin there is nothing to renew by, wherever it is tried.
        let unpinned = room.person("pat");
        let body = json!({ "csr": room.csr(), "route": null });
        let said = room.ask(&unpinned, "POST", "/v1/certificates", &body).await;
        said.refused(403, "pinned IP");
    });
}

#[test]
fn a_body_that_names_somebody_else_or_asks_for_more_gives_what_the_certificate_and_the_roles_say() {
    in_a_room(|room| async move {
        let alice = room.person("alice");
        let more = json!({
            "csr": room.csr(), "route": null, "user": "eve", "name": "eve", "roles": ["editor"], "mfa": true,
            "ttl_secs": 10_000_000, "until": null, "traits": { "db_users": ["*"] }, "cluster": "other.example",
        });
        let said = room.ask(&alice, "POST", "/v1/certificates", &more).await.ok();
        let holder = principal(&room, &said);
        assert_eq!(
            (holder.name.as_str(), holder.cluster.as_str()),
            ("alice", "gate.example")
        );
        let roles: Vec<_> = holder.roles.iter().map(ToString::to_string).collect();
        assert_eq!(roles, ["dev"]);
        assert!(holder.traits.get("db_users").is_none_or(Vec::is_empty), "{holder:?}");
        assert_eq!(holder.valid_until.as_secs(), START.as_secs() + 3600);
    });
}

#[test]
fn nobody_changes_a_password_without_a_link_and_nobody_makes_a_link_for_themselves() {
    in_a_room(|room| async move {
        let secret = room.join("alice").await;
        let alice = room.person("alice");
        let body =
            json!({ "password": "another password", "new_password": "another password", "code": room.code(&secret) });
        for path in [
            "/v1/me",
            "/v1/me/password",
            "/v1/password",
            "/v1/users/alice",
            "/v1/users/alice/password",
        ] {
            for method in ["POST", "PUT", "PATCH"] {
                let said = room.ask(&alice, method, path, &body).await;
                assert!((400..500).contains(&said.0), "{method} {path}: {said:?}");
            }
        }
        let own = room
            .ask(&alice, "POST", "/v1/users/alice/reset", &json!({ "ttl_secs": 60 }))
            .await;
        own.refused(403, "access denied to perform action");
        room.log_in("alice", PASSWORD, &room.code(&secret), None).await.ok();
    });
}
