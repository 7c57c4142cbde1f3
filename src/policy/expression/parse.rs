//! Recursive descent over the text of an expression. Types are checked while it is read.

use super::{Condition, Expression, List, Text, Value};
use crate::policy::matchers::compile;

/// How deep parentheses and negations may nest: each level is a few frames of the stack.
const MAX_DEPTH: usize = 32;

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (character {at} of the expression)")]
pub struct ExpressionError {
    /// Counted from 1.
    pub at: usize,
    pub reason: String,
}

type Result<T> = std::result::Result<T, ExpressionError>;

/// The condition, and how many regular expressions it holds.
pub(super) fn parse(source: &str) -> Result<(Condition, usize)> {
    let mut parser = Parser {
        source,
        rest: source,
        depth: 0,
        regexes: 0,
    };
    if source.len() > Expression::MAX_BYTES {
        return Err(parser.error(format!("it is longer than {} bytes", Expression::MAX_BYTES)));
    }
    let condition = parser.any()?;
    parser.skip_space();
    if !parser.rest.is_empty() {
        return Err(parser.expected("&&, || or the end"));
    }
    Ok((condition, parser.regexes))
}

struct Parser<'a> {
    source: &'a str,
    rest: &'a str,
    depth: usize,
    regexes: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Condition> {
        let first = self.all()?;
        let mut conditions = vec![first];
        while self.eat("||") {
            conditions.push(self.all()?);
        }
        Ok(alone(conditions, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition> {
        let first = self.one()?;
        let mut conditions = vec![first];
        while self.eat("&&") {
            conditions.push(self.one()?);
        }
        Ok(alone(conditions, Condition::All))
    }

    fn one(&mut self) -> Result<Condition> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("it is nested deeper than {MAX_DEPTH} levels")));
        }
        let condition = if self.eat("!") {
            Condition::Not(Box::new(self.one()?))
        } else if self.eat("(") {
            let inner = self.any()?;
            self.expect(")")?;
            inner
        } else if self.eat_call("contains") {
            self.contains()?
        } else if self.eat_call("regexp.match") {
            self.matches()?
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn contains(&mut self) -> Result<Condition> {
        let at = self.here();
        let Value::List(list) = self.value()? else {
            let reason = "the first argument of contains is a list, as user.spec.traits[\"team\"] is";
            return Err(self.error_at(at, reason.to_owned()));
        };
        self.expect(",")?;
        let item = self.text()?;
        self.expect(")")?;
        Ok(Condition::Contains(list, item))
    }

    fn matches(&mut self) -> Result<Condition> {
        let (first_at, first) = (self.here(), self.value()?);
        self.expect(",")?;
        let (second_at, second) = (self.here(), self.value()?);
        self.expect(")")?;
        let (value, pattern, at) = match (first, second) {
            (Value::Text(Text::Literal(_)), Value::Text(Text::Literal(_))) => {
                let reason = "regexp.match compares a label, a trait or the user's name with a pattern, not two texts";
                return Err(self.error_at(first_at, reason.to_owned()));
            }
            (value, Value::Text(Text::Literal(pattern))) => (value, pattern, second_at),
            (Value::Text(Text::Literal(pattern)), value) => (value, pattern, first_at),
            _ => {
                let reason = "the pattern of regexp.match is a text in quotes";
                return Err(self.error_at(second_at, reason.to_owned()));
            }
        };
        let pattern = compile(&pattern).map_err(|reason| self.error_at(at, reason))?;
        self.regexes += 1;
        Ok(Condition::Matches(value, pattern))
    }

    fn comparison(&mut self) -> Result<Condition> {
        let left = self.text()?;
        let negated = if self.eat("==") {
            false
        } else if self.eat("!=") {
            true
        } else {
            return Err(self.expected("== or !="));
        };
        let same = Condition::Same(left, self.text()?);
        Ok(if negated { Condition::Not(Box::new(same)) } else { same })
    }

    fn text(&mut self) -> Result<Text> {
        let at = self.here();
        match self.value()? {
            Value::Text(text) => Ok(text),
            Value::List(_) => {
                let reason = "a trait is a list; write contains(user.spec.traits[\"…\"], \"…\")";
                Err(self.error_at(at, reason.to_owned()))
            }
        }
    }

    fn value(&mut self) -> Result<Value> {
        let at = self.here();
        if at.starts_with(['"', '`', '\'']) {
            return Ok(Value::Text(Text::Literal(self.literal()?)));
        }
        let end = at.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
        let (word, rest) = at.split_at(end.unwrap_or(at.len()));
        self.rest = rest;
        match word {
            "labels" => Ok(Value::Text(Text::Label(self.key()?))),
            "user.spec.traits" => Ok(Value::List(List(self.key()?))),
            "user.metadata.name" => Ok(Value::Text(Text::PersonName)),
            _ => {
                self.rest = at;
                Err(self.expected(
                    "labels[\"…\"], user.spec.traits[\"…\"], user.metadata.name, contains(…), regexp.match(…) or a text in quotes",
                ))
            }
        }
    }

    fn key(&mut self) -> Result<String> {
        self.expect("[")?;
        let key = self.literal()?;
        self.expect("]")?;
        Ok(key)
    }

    /// `"text"` or `'text'` with the escapes \\ \" \' \n \t, or `text` in backquotes without any.
    fn literal(&mut self) -> Result<String> {
        let at = self.here();
        let Some(quote) = at.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) else {
            return Err(self.expected("a text in quotes"));
        };
        let (mut text, mut chars) = (String::new(), at[1..].char_indices());
        while let Some((offset, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &at[1 + offset + 1..];
                    return Ok(text);
                }
                '\\' if quote != '`' => match chars.next() {
                    Some((_, c @ ('\\' | '"' | '\''))) => text.push(c),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    _ => {
                        let reason = "a backslash in quotes is written \\\\ (or use `backquotes`)";
                        return Err(self.error_at(&at[1 + offset..], reason.to_owned()));
                    }
                },
                c => text.push(c),
            }
        }
        Err(self.error_at(at, format!("a {quote} is not closed")))
    }

    /// The name of a function and its opening parenthesis.
    fn eat_call(&mut self, name: &str) -> bool {
        let after = self.here().strip_prefix(name).map(str::trim_start);
        match after.and_then(|rest| rest.strip_prefix('(')) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.here().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.expected(token))
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// What is left, without the space before it.
    fn here(&mut self) -> &'a str {
        self.skip_space();
        self.rest
    }

    fn expected(&mut self, what: &str) -> ExpressionError {
        let found = match self.here().chars().take(16).collect::<String>() {
            rest if rest.is_empty() => "at the end".to_owned(),
            rest => format!("before {rest:?}"),
        };
        self.error(format!("{what} is expected {found}"))
    }

    fn error(&self, reason: String) -> ExpressionError {
        self.error_at(self.rest, reason)
    }

    /// An error where `rest` begins.
    fn error_at(&self, rest: &str, reason: String) -> ExpressionError {
        let before = self.source.len().saturating_sub(rest.len());
        let at = self.source.get(..before).map_or(0, |text| text.chars().count()) + 1;
        ExpressionError { at, reason }
    }
}

fn alone(mut conditions: Vec<Condition>, several: fn(Vec<Condition>) -> Condition) -> Condition {
    match (conditions.len(), conditions.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            conditions.extend(last);
            several(conditions)
        }
    }
}
