//! Matching one database user, database name or label value against what a role says.
//!
//! Names match exactly, or by the one wildcard `*`. Label values match literally, by a glob with `*`, or by a regular
//! expression from `^` to `$`. Everything is compiled when the role is read, except an expression that holds a template: its
//! text is known only with the person's traits.

use super::template::Template;
use crate::model::{Labels, Traits};
use regex::{Regex, RegexBuilder};
use std::collections::BTreeMap;
use std::fmt;

/// The key that together with itself as the value selects everything.
pub(super) const WILDCARD: &str = "*";
/// Bytes of one compiled regular expression, and of its cache.
const MAX_REGEX_BYTES: usize = 256 * 1024;

/// What a value counts as that cannot be compared: an expression from traits that does not compile, or one too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// It does not match: nothing is granted by mistake.
    Allow,
    /// It matches: nothing that was denied is granted by mistake.
    Deny,
}

impl Section {
    fn unreadable(self) -> bool {
        self == Self::Deny
    }
}

/// Compiles a regular expression within limits. The error is one line.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(max) => {
                format!("the regular expression needs more than {max} bytes when compiled; make it smaller")
            }
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                format!(
                    "the regular expression does not compile: {}",
                    last.trim_start_matches("error: ")
                )
            }
        })
}

/// One value of `db_users` or `db_names`.
#[derive(Debug, Clone)]
pub struct NamePattern {
    source: String,
    form: NameForm,
}

#[derive(Debug, Clone)]
enum NameForm {
    Any,
    Literal,
    Template(Template),
}

impl NamePattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = match Template::parse(text)? {
            Some(template) => NameForm::Template(template),
            None if text == WILDCARD => NameForm::Any,
            None => NameForm::Literal,
        };
        Ok(Self {
            source: text.to_owned(),
            form,
        })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn regexes(&self) -> usize {
        match &self.form {
            NameForm::Template(template) => template.regexes(),
            NameForm::Any | NameForm::Literal => 0,
        }
    }

    /// `*` for any. What is too long to be compared stands for nothing in `allow` and for all in `deny`.
    fn values(&self, traits: &Traits, section: Section) -> Vec<String> {
        match &self.form {
            NameForm::Any | NameForm::Literal => vec![self.source.clone()],
            NameForm::Template(template) => {
                let expanded = template.expand(traits).filter_map(|value| match value {
                    Ok(value) => Some(value.into_owned()),
                    Err(_) => section.unreadable().then(|| WILDCARD.to_owned()),
                });
                expanded.collect()
            }
        }
    }

    fn matches(&self, name: &str, traits: &Traits, section: Section) -> bool {
        match &self.form {
            NameForm::Any => true,
            NameForm::Literal => self.source == name,
            NameForm::Template(template) => template.expand(traits).any(|value| match value {
                Ok(value) => value == WILDCARD || value == name,
                Err(_) => section.unreadable(),
            }),
        }
    }
}

/// The values of `db_users` or `db_names`; one that matches is enough.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NamePatterns(pub Vec<NamePattern>);

impl NamePatterns {
    pub(super) fn find(&self, name: &str, traits: &Traits, section: Section) -> Option<&NamePattern> {
        self.0.iter().find(|pattern| pattern.matches(name, traits, section))
    }

    /// The names that are meant, for a list of them.
    pub(super) fn values(&self, traits: &Traits, section: Section) -> Vec<String> {
        self.0
            .iter()
            .flat_map(|pattern| pattern.values(traits, section))
            .collect()
    }
}

/// One value of a key of `db_labels`.
#[derive(Debug, Clone)]
pub struct LabelPattern {
    source: String,
    form: LabelForm,
}

#[derive(Debug, Clone)]
enum LabelForm {
    Literal,
    Glob,
    Regex(Regex),
    Template(Template),
}

fn is_regex(text: &str) -> bool {
    text.starts_with('^') && text.ends_with('$')
}

impl LabelPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = match Template::parse(text)? {
            Some(template) => LabelForm::Template(template),
            None if is_regex(text) => LabelForm::Regex(compile(text)?),
            None if text.contains(WILDCARD) => LabelForm::Glob,
            None => LabelForm::Literal,
        };
        Ok(Self {
            source: text.to_owned(),
            form,
        })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn is_template(&self) -> bool {
        matches!(self.form, LabelForm::Template(_))
    }

    pub(super) fn regexes(&self) -> usize {
        match &self.form {
            LabelForm::Regex(_) => 1,
            LabelForm::Template(template) => template.regexes(),
            LabelForm::Literal | LabelForm::Glob => 0,
        }
    }

    fn matches(&self, label: &str, traits: &Traits, section: Section) -> bool {
        match &self.form {
            LabelForm::Literal => self.source == label,
            LabelForm::Glob => glob_matches(&self.source, label),
            LabelForm::Regex(regex) => regex.is_match(label),
            LabelForm::Template(template) => template.expand(traits).any(|value| match value {
                Ok(value) if is_regex(&value) => {
                    compile(&value).map_or(section.unreadable(), |regex| regex.is_match(label))
                }
                Ok(value) => glob_matches(&value, label),
                Err(_) => section.unreadable(),
            }),
        }
    }
}

/// `*` stands for any text, also none; everything else for itself. Time is at most the product of the lengths.
fn glob_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go back to: the last `*`, and the text that it has swallowed so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(p).all(|b| *b == b'*')
}

/// `db_labels`: all keys must match, each by any of its values. One without keys matches nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelSelector(pub BTreeMap<String, Vec<LabelPattern>>);

/// Why a selector does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LabelMismatch {
    NoSelector,
    KeyMissing(String),
    ValueDiffers { key: String, value: String },
}

impl LabelSelector {
    /// `'*': '*'`.
    pub fn everything() -> Self {
        let any = LabelPattern {
            source: WILDCARD.to_owned(),
            form: LabelForm::Glob,
        };
        Self(BTreeMap::from([(WILDCARD.to_owned(), vec![any])]))
    }

    pub fn is_everything(&self) -> bool {
        matches!(self.0.get(WILDCARD).map(Vec::as_slice), Some([only]) if only.source == WILDCARD)
    }

    pub(super) fn check(&self, labels: &Labels, traits: &Traits, section: Section) -> Result<(), LabelMismatch> {
        if self.0.is_empty() {
            return Err(LabelMismatch::NoSelector);
        }
        if self.is_everything() {
            return Ok(());
        }
        for (key, patterns) in &self.0 {
            let Some(value) = labels.get(key) else {
                return Err(LabelMismatch::KeyMissing(key.clone()));
            };
            if !patterns.iter().any(|pattern| pattern.matches(value, traits, section)) {
                return Err(LabelMismatch::ValueDiffers {
                    key: key.clone(),
                    value: value.to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl PartialEq for LabelPattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Values that an error or a denial lists before it says how many more there are.
const LISTED: usize = 8;

fn list(f: &mut fmt::Formatter<'_>, sources: &mut dyn ExactSizeIterator<Item = &str>) -> fmt::Result {
    let more = sources.len().saturating_sub(LISTED);
    f.write_str("[")?;
    for (at, source) in sources.take(LISTED).enumerate() {
        write!(f, "{}{source:?}", if at == 0 { "" } else { ", " })?;
    }
    if more > 0 {
        write!(f, ", and {more} more")?;
    }
    f.write_str("]")
}

impl fmt::Display for NamePatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &mut self.0.iter().map(NamePattern::source))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (key, patterns)) in self.0.iter().take(LISTED).enumerate() {
            write!(f, "{}{key:?}: ", if at == 0 { "" } else { ", " })?;
            list(f, &mut patterns.iter().map(LabelPattern::source))?;
        }
        f.write_str(if self.0.len() > LISTED { ", …}" } else { "}" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_glob_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("dev-*", "dev-", true),
            ("dev-*", "dev-eu", true),
            ("dev-*", "xdev-eu", false),
            ("*-eu", "dev-eu-eu", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "acb", false),
            ("a.c", "abc", false),
            ("**", "x", true),
            ("é*", "éa", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_regular_expression_that_would_need_too_much_memory_is_refused() {
        let error = LabelPattern::parse("^(([a-z]{100}){100}){10}$").expect_err("too big");
        assert!(error.contains("needs more than"), "{error}");
    }

    #[test]
    fn an_expression_from_a_trait_that_does_not_compile_denies_and_does_not_allow() {
        let selector = LabelSelector(BTreeMap::from([(
            "env".to_owned(),
            vec![LabelPattern::parse("^{{internal.t}}$").expect("fine")],
        )]));
        let labels = Labels::parse("env=dev").expect("labels");
        let traits = Traits::from([("t".to_owned(), vec!["(".to_owned()])]);
        assert!(selector.check(&labels, &traits, Section::Allow).is_err());
        assert!(selector.check(&labels, &traits, Section::Deny).is_ok());
    }
}
