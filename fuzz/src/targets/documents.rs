//! Files that people write: the configuration of a node, and the resources of a cluster.

use super::is_a_sentence;
use postern::config::{Config, ConfigError};
use postern::policy::{Problem, Resource, parse_resources};

/// What is wrong is said with the file and a line that it has; what is right is read in the same way again.
pub fn config(bytes: &[u8]) {
    const ORIGIN: &str = "node.yaml";
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = Config::parse(text, ORIGIN);
    match &read {
        Ok(config) => assert!(!config.services().is_empty()),
        Err(error) => {
            is_a_sentence(error);
            let said = error.to_string();
            let place = said.strip_prefix(ORIGIN).unwrap_or_else(|| panic!("no place: {said}"));
            let line = place
                .strip_prefix(':')
                .and_then(|place| place.split(':').next()?.parse::<usize>().ok());
            // A line feed at the end begins one more; YAML takes a carriage return alone as well.
            let lines = 1 + text
                .chars()
                .filter(|c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}'))
                .count();
            assert!(line.unwrap_or(0) <= lines, "{said}: there are {lines} lines");
            assert!(
                !matches!(error, ConfigError::ReadFile { .. } | ConfigError::Read { .. }),
                "it opens no file"
            );
        }
    }
    let again = Config::parse(text, ORIGIN);
    assert_eq!(format!("{read:?}"), format!("{again:?}"));
}

/// What is read is written as YAML and as JSON, and is the same when it is read from either; what is wrong is said with its place.
pub fn resources(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let found = match parse_resources(text) {
        Ok(found) => found,
        Err(error) => {
            is_a_sentence(&error);
            let of_the_whole = matches!(error.problem(), Problem::TooLarge { .. } | Problem::Syntax { .. });
            assert!(error.position().is_some() || of_the_whole, "no place: {error}");
            return;
        }
    };
    for resource in &found {
        let json = resource.to_json();
        let from_json = Resource::from_json(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!(from_json.to_json(), json);
        let yaml = resource.to_yaml().unwrap_or_else(|error| panic!("{error}: {json}"));
        let from_yaml = parse_resources(&yaml).unwrap_or_else(|error| panic!("{error}:\n{yaml}"));
        assert_eq!(from_yaml.len(), 1);
        assert_eq!(from_yaml[0].to_json(), json, "{yaml}");
    }
}
