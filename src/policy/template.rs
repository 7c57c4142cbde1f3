//! Templates: `{{internal.db_users}}`, `app_{{external["team"]}}`, `{{email.local(external.email)}}`,
//! `{{regexp.replace(external.role, "^db-(.*)$", "$1")}}`.
//!
//! A value holds at most one template, with literal text around it. It stands for one value per value of the trait, and for
//! nothing when the person has no such trait. `internal` and `external` read the same traits.

use super::matchers::compile;
use crate::model::Traits;
use regex::Regex;
use std::borrow::Cow;

/// Functions within functions.
const MAX_FUNCTIONS: usize = 4;
/// Bytes of the replacement of `regexp.replace`. With the next limit it bounds the work for one value.
const MAX_REPLACEMENT_BYTES: usize = 256;
/// Bytes that one value may grow to; nothing that is compared with it is longer.
const MAX_EXPANDED_BYTES: usize = 1024;

/// A value with one template in it, parsed and with its regular expressions compiled.
#[derive(Debug, Clone)]
pub struct Template {
    prefix: String,
    /// The trait.
    variable: String,
    /// Innermost first.
    functions: Vec<Function>,
    suffix: String,
}

#[derive(Debug, Clone)]
enum Function {
    /// `email.local`: what stands before the `@`.
    EmailLocal,
    /// `regexp.replace`: a value that does not match is dropped.
    Replace { pattern: Regex, replacement: String },
}

/// An expanded value that grew beyond what can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Template {
    /// `None` for a text without a template. The error says what is wrong with the template.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some((prefix, rest)) = text.split_once("{{") else {
            return if text.contains("}}") {
                Err("it has }} without {{".to_owned())
            } else {
                Ok(None)
            };
        };
        let mut parser = Parser { rest };
        let mut functions = Vec::new();
        let variable = parser.expression(&mut functions)?;
        parser.expect("}}")?;
        let suffix = parser.rest;
        if suffix.contains("{{") || suffix.contains("}}") {
            return Err("it has more than one template; give each a value of its own".to_owned());
        }
        Ok(Some(Self {
            prefix: prefix.trim_start().to_owned(),
            variable,
            functions,
            suffix: suffix.trim_end().to_owned(),
        }))
    }

    /// How many regular expressions it holds.
    pub(super) fn regexes(&self) -> usize {
        self.functions
            .iter()
            .filter(|f| matches!(f, Function::Replace { .. }))
            .count()
    }

    /// The values it stands for. A value that a function turns into nothing is left out.
    pub(super) fn expand<'t>(&'t self, traits: &'t Traits) -> impl Iterator<Item = Result<Cow<'t, str>, TooLong>> {
        let values = traits.get(&self.variable).map(Vec::as_slice).unwrap_or_default();
        values.iter().filter_map(|value| self.value(value).transpose())
    }

    fn value<'t>(&'t self, value: &'t str) -> Result<Option<Cow<'t, str>>, TooLong> {
        let mut value = Cow::Borrowed(value);
        for function in &self.functions {
            match function.apply(&value)? {
                Some(next) => value = Cow::Owned(next),
                None => return Ok(None),
            }
        }
        if value.is_empty() {
            return Ok(None);
        }
        if value.len() + self.prefix.len() + self.suffix.len() > MAX_EXPANDED_BYTES {
            return Err(TooLong);
        }
        if self.prefix.is_empty() && self.suffix.is_empty() {
            return Ok(Some(value));
        }
        Ok(Some(Cow::Owned(format!("{}{value}{}", self.prefix, self.suffix))))
    }
}

impl Function {
    fn apply(&self, value: &str) -> Result<Option<String>, TooLong> {
        match self {
            Self::EmailLocal => Ok(match value.split_once('@') {
                Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !domain.contains('@') => {
                    Some(local.to_owned())
                }
                _ => None,
            }),
            Self::Replace { pattern, replacement } => replace_all(pattern, value, replacement),
        }
    }
}

/// As `Regex::replace_all`, but it stops when the result is longer than anything it could be compared with.
fn replace_all(pattern: &Regex, value: &str, replacement: &str) -> Result<Option<String>, TooLong> {
    let (mut out, mut copied, mut matched) = (String::new(), 0, false);
    for captures in pattern.captures_iter(value) {
        let Some(whole) = captures.get(0) else {
            continue;
        };
        matched = true;
        out.push_str(&value[copied..whole.start()]);
        captures.expand(replacement, &mut out);
        copied = whole.end();
        if out.len() > MAX_EXPANDED_BYTES {
            return Err(TooLong);
        }
    }
    out.push_str(&value[copied..]);
    Ok(matched.then_some(out))
}

/// Refuses a group in the replacement that the pattern does not have: it would stand for nothing, which is never meant.
/// `$1_rw` is the common slip; it names a group `1_rw`.
fn check_groups(pattern: &Regex, replacement: &str) -> Result<(), String> {
    let mut rest = replacement;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            continue;
        }
        let (group, next) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        let exists = match group.parse::<usize>() {
            Ok(number) => number < pattern.captures_len(),
            // A lone `$` stands for itself.
            Err(_) => group.is_empty() || pattern.capture_names().flatten().any(|name| name == group),
        };
        if !exists {
            return Err(format!("the pattern has no group {group:?}; write a group as ${{1}}"));
        }
        rest = next;
    }
    Ok(())
}

/// Recursive descent over what is left of the text.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn expression(&mut self, functions: &mut Vec<Function>) -> Result<String, String> {
        let head = self.word()?;
        match head {
            "internal" | "external" => self.variable(head),
            "email" | "regexp" => {
                self.expect(".")?;
                self.function(head, functions)
            }
            _ => Err(format!(
                "{head:?} is not known in a template; write {{{{internal.TRAIT}}}}, {{{{external.TRAIT}}}}, \
                 email.local(…) or regexp.replace(…)"
            )),
        }
    }

    fn variable(&mut self, namespace: &str) -> Result<String, String> {
        if self.eat("[") {
            let name = self.string()?;
            self.expect("]")?;
            return Ok(name);
        }
        if !self.eat(".") {
            return Err(format!(
                "{namespace} needs the name of a trait, as in {{{{{namespace}.db_users}}}}"
            ));
        }
        let name = self.word()?.to_owned();
        if self.rest.starts_with(['-', '.', ':', '/']) {
            return Err(format!(
                "a trait with such a name is written as {{{{{namespace}[\"{name}…\"]}}}}"
            ));
        }
        Ok(name)
    }

    fn function(&mut self, package: &str, functions: &mut Vec<Function>) -> Result<String, String> {
        let name = self.word()?;
        if !matches!((package, name), ("email", "local") | ("regexp", "replace")) {
            return Err(format!(
                "function {package}.{name} is not known; known are email.local and regexp.replace"
            ));
        }
        self.expect("(")?;
        let variable = self.argument(functions)?;
        let function = if package == "email" {
            Function::EmailLocal
        } else {
            self.expect(",")?;
            let pattern = compile(&self.string()?)?;
            self.expect(",")?;
            let replacement = self.string()?;
            if replacement.len() > MAX_REPLACEMENT_BYTES {
                return Err(format!("a replacement may have {MAX_REPLACEMENT_BYTES} bytes"));
            }
            check_groups(&pattern, &replacement)?;
            Function::Replace { pattern, replacement }
        };
        self.expect(")")?;
        if functions.len() >= MAX_FUNCTIONS {
            return Err(format!("at most {MAX_FUNCTIONS} functions may be used in one template"));
        }
        functions.push(function);
        Ok(variable)
    }

    /// The first argument. Its depth is bounded here too, because every level is a frame of the stack.
    fn argument(&mut self, functions: &mut Vec<Function>) -> Result<String, String> {
        if self.rest.matches('(').count() > 64 {
            return Err("it is nested too deeply".to_owned());
        }
        self.expression(functions)
    }

    fn word(&mut self) -> Result<&'a str, String> {
        self.rest = self.rest.trim_start();
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return Err(format!("a name is expected {}", self.here()));
        }
        self.rest = rest;
        Ok(word)
    }

    /// `"text"` with the escapes \\ \" \n \t, or `text` in backquotes without any.
    fn string(&mut self) -> Result<String, String> {
        self.rest = self.rest.trim_start();
        if self.eat("`") {
            let Some((text, rest)) = self.rest.split_once('`') else {
                return Err("a ` is not closed".to_owned());
            };
            self.rest = rest;
            return Ok(text.to_owned());
        }
        if !self.eat("\"") {
            return Err(format!("a text in double quotes is expected {}", self.here()));
        }
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('\\' | '"'))) => text.push(c),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    _ => return Err("a backslash in double quotes is written \\\\ (or use `backquotes`)".to_owned()),
                },
                c => text.push(c),
            }
        }
        Err("a \" is not closed".to_owned())
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(format!("{token} is expected {}", self.here()))
        }
    }

    fn here(&self) -> String {
        match self.rest.chars().take(16).collect::<String>() {
            rest if rest.is_empty() => "at the end".to_owned(),
            rest => format!("before {rest:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits() -> Traits {
        let values = |list: &[&str]| list.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        Traits::from([
            ("db_users".to_owned(), values(&["alice", "app"])),
            (
                "email".to_owned(),
                values(&["bob@example.com", "not an address", "@x", "a@b@c"]),
            ),
            ("team-name".to_owned(), values(&["db-blue", "web"])),
            ("long".to_owned(), values(&[&"x".repeat(MAX_EXPANDED_BYTES)])),
            ("empty".to_owned(), values(&[""])),
        ])
    }

    fn expand(text: &str) -> Vec<String> {
        let template = Template::parse(text).expect("a template").expect("one template");
        let traits = traits();
        template
            .expand(&traits)
            .map(|v| v.expect("short").into_owned())
            .collect()
    }

    #[test]
    fn a_template_stands_for_every_value_of_the_trait() {
        for text in [
            "{{internal.db_users}}",
            "{{external.db_users}}",
            "{{ external[\"db_users\"] }}",
        ] {
            assert_eq!(expand(text), ["alice", "app"], "{text}");
        }
        assert_eq!(expand("ro_{{internal.db_users}}_x"), ["ro_alice_x", "ro_app_x"]);
    }

    #[test]
    fn a_template_stands_for_nothing_when_the_trait_has_no_values() {
        assert_eq!(expand("app_{{internal.nobody}}"), Vec::<String>::new());
        assert_eq!(expand("app_{{internal.empty}}"), Vec::<String>::new());
    }

    #[test]
    fn email_local_takes_what_stands_before_the_at_sign_and_drops_what_is_no_address() {
        assert_eq!(expand("{{email.local(external.email)}}"), ["bob"]);
    }

    #[test]
    fn regexp_replace_drops_values_that_do_not_match() {
        assert_eq!(
            expand(r#"{{regexp.replace(external["team-name"], "^db-(.*)$", "${1}_rw")}}"#),
            ["blue_rw"]
        );
        assert_eq!(
            expand(r#"{{regexp.replace(email.local(external.email), `[aeiou]{1}`, "_")}}"#),
            ["b_b"]
        );
    }

    #[test]
    fn a_value_that_grows_too_long_is_reported_and_not_compared() {
        let traits = traits();
        for text in [
            "{{internal.long}}x",
            r#"{{regexp.replace(internal.long, "x", "$0$0$0$0")}}"#,
        ] {
            let template = Template::parse(text).expect("a template").expect("one");
            assert_eq!(template.expand(&traits).collect::<Vec<_>>(), [Err(TooLong)], "{text}");
        }
    }

    #[test]
    fn a_text_without_braces_is_no_template() {
        assert!(Template::parse("alice").expect("fine").is_none());
        assert!(Template::parse("^a{2}$").expect("fine").is_none());
    }

    #[test]
    fn a_template_that_does_not_parse_says_why() {
        for (text, why) in [
            ("{{internal.db_users", "}} is expected at the end"),
            ("internal.db_users}}", "}} without {{"),
            ("{{internal}}", "needs the name of a trait"),
            ("{{user.name}}", "\"user\" is not known"),
            ("{{}}", "a name is expected before \"}}\""),
            ("{{internal.a}}{{internal.b}}", "more than one template"),
            ("{{internal.team-name}}", "[\"team…\"]"),
            ("{{email.domain(external.email)}}", "email.domain is not known"),
            ("{{regexp.replace(external.a, \"(\", \"\")}}", "unclosed group"),
            ("{{regexp.replace(external.a, \"\\d\", \"\")}}", "backslash"),
            ("{{external[\"a}}", "not closed"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let deep = format!("{{{{{}external.a{}}}}}", "email.local(".repeat(50), ")".repeat(50));
        assert!(Template::parse(&deep).is_err());
    }
}
