//! The pages, for whatever somebody is called.

use super::html;
use super::sign_up::refused;
use crate::actors::accounts::{AccountError, Invitation, InviteKind};
use crate::model::{PersonName, Secret, Timestamp};

fn invitation(person: &str, kind: InviteKind) -> Invitation {
    Invitation {
        person: PersonName::new(person).unwrap(),
        kind,
        expires: Timestamp::from_secs(1_700_000_010),
        otp_uri: Secret::new("otpauth://totp/gate:alice?secret=GEZDGNBVGY3TQOJQ&issuer=gate".to_owned()),
        otp_secret: Secret::new("GEZDGNBVGY3TQOJQ".to_owned()),
    }
}

#[test]
fn a_link_shows_all_that_is_needed_to_set_an_account_up() {
    let page = html::sign_up("gate", &invitation("alice", InviteKind::Invite), &[]).into_string();
    for part in [
        "<!DOCTYPE html><html lang=\"en\">",
        "<strong><bdi>alice</bdi></strong>",
        "2023-11-14 22:13 UTC",
        "<form method=\"post\">",
        "name=\"password\" type=\"password\"",
        "name=\"confirm\" type=\"password\"",
        "name=\"otp\" type=\"text\" inputmode=\"numeric\" autocomplete=\"one-time-code\"",
        "<svg class=\"qr\"",
        "href=\"otpauth://totp/gate:alice?secret=GEZDGNBVGY3TQOJQ&amp;issuer=gate\"",
        "<code id=\"secret\">GEZD GNBV GY3T QOJQ</code>",
        "At least 12 and at most 128 characters",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    // Every input has a label, and nothing needs a script or a style of the page's own.
    for id in ["user", "password", "confirm", "otp"] {
        assert!(page.contains(&format!("<label for=\"{id}\">")) && page.contains(&format!("id=\"{id}\"")));
    }
    assert!(!page.contains("<script") && !page.contains("style=") && !page.contains("role=\"alert\""));
    let reset = html::sign_up("gate", &invitation("alice", InviteKind::Reset), &[]).into_string();
    assert!(reset.contains("<h1>Set a new password</h1>"), "{reset}");
}

#[test]
fn what_somebody_else_chose_is_text_on_a_page_and_one_word_in_a_command() {
    let name = "<img src=x onerror=alert(1)>&;$(id)\u{202e}".replace(' ', "_");
    let problems = ["<b>".to_owned()];
    for page in [
        html::sign_up("gate", &invitation(&name, InviteKind::Invite), &problems),
        html::done("gate.example:443", &name),
    ] {
        let page = page.into_string();
        assert!(page.contains("&lt;img_src=x") && !page.contains("<img"), "{page}");
        assert!(!page.contains("<b>") && !page.contains('\u{202e}'), "{page}");
    }
    let done = html::done("gate.example:443", &name).into_string();
    assert!(
        done.contains("--proxy=gate.example:443 --user='&lt;img_src=x_onerror=alert(1)&gt;&amp;;$(id)\u{fffd}'"),
        "{done}"
    );
    let done = html::done("[::1]:443", "alice@example.com").into_string();
    assert!(done.contains("postern login --proxy=[::1]:443 --user=alice@example.com"));
    assert!(done.contains("tsh login --proxy=[::1]:443 --user=alice@example.com"));
    assert_eq!(
        html::clean("a\u{7}b\u{1b}[2Jc\r\nd"),
        "a\u{fffd}b\u{fffd}[2Jc\u{fffd}\u{fffd}d"
    );
}

#[test]
fn the_status_tells_a_link_that_does_not_work_from_a_cluster_that_cannot_tell() {
    let status = |error: &AccountError| refused(error).status().as_u16();
    for gone in [
        AccountError::NoInvite,
        AccountError::InviteExpired,
        AccountError::InviteUsed,
    ] {
        assert_eq!(status(&gone), 404);
    }
    assert_eq!(status(&AccountError::TooMany), 429);
    for away in [
        AccountError::Away("down".to_owned()),
        AccountError::Busy,
        AccountError::NotReady,
        AccountError::Unreadable("record".to_owned()),
    ] {
        let response = refused(&away);
        assert_eq!(response.status().as_u16(), 503);
        assert!(response.headers().contains_key("retry-after"));
    }
}

#[test]
fn the_other_pages_say_what_this_is() {
    let front = html::front("gate", "gate.example:443").into_string();
    assert!(front.contains("postern login --proxy=gate.example:443"), "{front}");
    assert!(html::STYLE.contains("prefers-color-scheme: dark"));
}
