//! The pages themselves. Everything that is not a literal is escaped by the macro, and goes through [`clean`] where somebody
//! else chose it.

use super::picture::qr_code;
use crate::actors::accounts::{Invitation, InviteKind, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN};
use crate::model::Timestamp;
use maud::{DOCTYPE, Markup, html};

/// What the stylesheet is served as.
pub(super) const STYLE_PATH: &str = "/web/style.css";
pub(super) const STYLE: &str = include_str!("style.css");

/// Letters of a page: control characters, and those that turn the direction of what follows, are shown as such.
pub(super) fn clean(text: &str) -> String {
    let turns =
        |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if c.is_control() || turns(c) { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// One word of a command line, as a shell reads it.
fn shell_word(text: &str) -> String {
    let text = clean(text);
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '@' | '+' | '[' | ']');
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn page(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – Postern" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(STYLE_PATH);
            }
            body { main { h1 { (title) } (body) } }
        }
    }
}

/// What this is and how to log in.
pub(super) fn front(cluster: &str, proxy: &str) -> Markup {
    page(
        &format!("Postern, cluster {}", clean(cluster)),
        html! {
            p { "This is an access gateway for PostgreSQL. There is nothing to do here with a browser." }
            p { "To log in, type in a terminal:" }
            pre { code { "postern login --proxy=" (shell_word(proxy)) } }
            p { "You need an account: an administrator gives you a link that sets your password." }
        },
    )
}

/// A page that only says something.
pub(super) fn notice(title: &str, text: &str) -> Markup {
    page(title, html! { p { (text) } })
}

/// The form that a link leads to, with what was wrong with the last try.
pub(super) fn sign_up(cluster: &str, invitation: &Invitation, problems: &[String]) -> Markup {
    let title = match invitation.kind {
        InviteKind::Invite => "Set up your account",
        InviteKind::Reset => "Set a new password",
    };
    let uri = invitation.otp_uri.expose();
    let body = html! {
        p {
            "For " strong { bdi { (clean(invitation.person.as_str())) } } " in cluster " strong { (clean(cluster)) } ". This link works once, "
            "until " time datetime=(invitation.expires.to_string()) { (in_words(invitation.expires)) } "."
        }
        @if !problems.is_empty() {
            div .problems role="alert" {
                p { strong { "Nothing has been set yet:" } }
                ul { @for problem in problems { li { (problem) } } }
            }
        }
        form method="post" {
            h2 { "1. One-time codes" }
            p { "Scan this with an authenticator app. On this device, you can " a href=(uri) { "open it in an app" } " instead." }
            @if let Some(picture) = qr_code(uri, "QR code for an authenticator app") { (picture) }
            p { "Or type this key into the app (time-based, 6 digits, 30 seconds):" }
            p { code #secret { (in_groups(invitation.otp_secret.expose())) } }
            h2 { "2. Password" }
            p #rules { "At least " (PASSWORD_CHARS_MIN) " and at most " (PASSWORD_CHARS_MAX) " characters; any characters will do." }
            label for="user" { "User name" }
            input #user type="text" value=(clean(invitation.person.as_str())) autocomplete="username" readonly;
            label for="password" { "Password" }
            input #password name="password" type="password" autocomplete="new-password" minlength=(PASSWORD_CHARS_MIN) required
                aria-describedby="rules";
            label for="confirm" { "Password again" }
            input #confirm name="confirm" type="password" autocomplete="new-password" minlength=(PASSWORD_CHARS_MIN) required;
            h2 { "3. Check" }
            label for="otp" { "Six digits that the app shows now" }
            input #otp name="otp" type="text" inputmode="numeric" autocomplete="one-time-code" maxlength="11" required;
            button type="submit" { "Set password" }
        }
    };
    page(title, body)
}

/// What to type next.
pub(super) fn done(proxy: &str, person: &str) -> Markup {
    let flags = format!("--proxy={} --user={}", shell_word(proxy), shell_word(person));
    page(
        "Your password is set",
        html! {
            p { "The link is used up; you can close this page. To log in, type in a terminal:" }
            pre { code #next { "postern login " (flags) } }
            p { "Where the program has the name " code { "tsh" } ":" }
            pre { code { "tsh login " (flags) } }
            p { "You are asked for the password, and for the code that the app shows then: wait for the next one." }
        },
    )
}

/// `JBSWY3DPEHPK3PXP` is easier to type as `JBSW Y3DP EHPK 3PXP`.
fn in_groups(secret: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    groups.join(" ")
}

/// RFC 3339 in UTC, `2026-01-31T12:34:56.789Z`, as `2026-01-31 12:34 UTC`.
fn in_words(moment: Timestamp) -> String {
    let text = moment.to_string();
    match (text.get(..10), text.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => text,
    }
}
