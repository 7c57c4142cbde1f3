//! Short texts with a form of their own: labels, expressions, templates, patterns, names, addresses, pins, moments.

use super::is_a_sentence;
use postern::config::{ListenAddr, ListenHost};
use postern::model::{
    ClusterName, ConnectionId, DbName, DbUser, Endpoint, Labels, LockName, NodeId, NodeKind, NodeName, PersonName,
    RoleName, ServiceName, SessionId, Timestamp, Traits, percent_encoded,
};
use postern::pki::CaPin;
use postern::policy::{Expression, Facts, NamePattern, Template};
use postern::protocol::alpn;
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// The text is read as each of them. What is read is written so that it is read as the same; what is wrong is a sentence, with a
/// place where the text may be long.
pub fn words(bytes: &[u8]) {
    if let Some(first) = bytes.first() {
        let _ = alpn::classify(*first);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    conditions(text);
    names(text);
    addresses(text);
    let written = percent_encoded(text);
    assert!(written.is_ascii() && written.len() <= 3 * text.len());
    if let Some(moment) = Timestamp::parse_rfc3339(text) {
        // It is written in milliseconds.
        let written = Timestamp::parse_rfc3339(&moment.to_string()).expect("a moment");
        assert_eq!(
            written.as_micros(),
            moment.as_micros().div_euclid(1000) * 1000,
            "{text:?}"
        );
    }
}

fn conditions(text: &str) {
    match Labels::parse(text) {
        Ok(labels) => assert_eq!(Labels::parse(&labels.to_string()), Ok(labels)),
        Err(error) => is_a_sentence(&error),
    }
    let labels = Labels::parse("env=dev,team=orders").expect("labels");
    let person = PersonName::new("alice@example.com").expect("a name");
    let traits: Traits = [("db_users".to_owned(), vec!["alice".to_owned(), "app".to_owned()])].into();
    match Expression::parse(text) {
        Ok(expression) => {
            let facts = Facts {
                labels: &labels,
                person: &person,
                traits: &traits,
            };
            let again = Expression::parse(expression.source()).expect("its source");
            assert_eq!((again.source(), again.holds(facts)), (text, expression.holds(facts)));
            let negated = Expression::parse(&format!("!({text})"));
            assert!(negated.is_err() || negated.is_ok_and(|not| not.holds(facts) != expression.holds(facts)));
        }
        Err(error) => {
            is_a_sentence(&error);
            assert!((1..=text.chars().count() + 1).contains(&error.at), "{error}");
        }
    }
    match Template::parse(text) {
        Ok(template) => assert_eq!(template.is_some(), text.contains("{{")),
        Err(error) => is_a_sentence(&error),
    }
    match NamePattern::parse(text) {
        Ok(pattern) => assert_eq!(pattern.source(), text),
        Err(error) => is_a_sentence(&error),
    }
}

fn names(text: &str) {
    as_it_is::<ClusterName>(text);
    as_it_is::<DbName>(text);
    as_it_is::<DbUser>(text);
    as_it_is::<LockName>(text);
    as_it_is::<NodeName>(text);
    as_it_is::<PersonName>(text);
    as_it_is::<RoleName>(text);
    as_it_is::<ServiceName>(text);
    written_again::<NodeId>(text);
    written_again::<SessionId>(text);
    written_again::<ConnectionId>(text);
    written_again::<NodeKind>(text);
    written_again::<CaPin>(text);
}

/// A name is its text.
fn as_it_is<T: FromStr<Err: Display> + Display>(text: &str) {
    match text.parse::<T>() {
        Ok(name) => assert_eq!(name.to_string(), text),
        Err(error) if text.len() < 400 => is_a_sentence(&error),
        Err(_) => {}
    }
}

fn written_again<T: FromStr<Err: Display> + Display + Debug + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string().parse::<T>().ok(), Some(value)),
        Err(error) if text.len() < 400 => is_a_sentence(&error),
        Err(_) => {}
    }
}

fn addresses(text: &str) {
    for read in [Endpoint::parse(text, 5432), Endpoint::parse_database_uri(text)] {
        match read {
            Ok(endpoint) => {
                assert_eq!(
                    Endpoint::parse(&endpoint.to_string(), 1),
                    Ok(endpoint.clone()),
                    "{text:?}"
                );
                assert!(!endpoint.host.is_empty() && endpoint.port > 0);
            }
            Err(error) if text.len() < 400 => is_a_sentence(&error),
            Err(_) => {}
        }
    }
    if let Ok(address) = ListenAddr::parse(text, 443) {
        assert_eq!(
            ListenAddr::parse(&address.to_string(), 1),
            Ok(address.clone()),
            "{text:?}"
        );
        assert!(!matches!(address.host, ListenHost::Name(name) if name.is_empty()));
    }
}
