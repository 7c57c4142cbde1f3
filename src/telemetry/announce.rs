//! The log of what is stuck: a line when it begins and one when it has ended, and counts for the metrics.

use super::stuck::{Found, StuckRule, lasting};
use crate::model::{ConnectionId, Moment};
use std::collections::HashMap;
use std::time::Duration;

/// What is seen for the first time is said when it has lasted so long: a burst is no news.
const SAID_AFTER: Duration = Duration::from_secs(1);
/// It has ended when it was not seen for so long. What comes and goes faster is one case, with one line at each end.
const ENDED_AFTER: Duration = Duration::from_secs(10);
/// Cases that are told apart. Where everything is stuck, the first say it; all are counted while they are open.
const CASES_MAX: usize = 1024;
/// Lines of one look. A fault that meets a thousand clients at once is one fault.
const LINES_MAX: usize = 20;

/// Cases of one rule, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleCount {
    /// That ever began, of those that were told apart.
    pub began: u64,
    /// That are open now.
    pub open: u64,
}

/// What is said about one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Began {
        rule: StuckRule,
        room: String,
        peer: String,
        sentence: String,
        next: String,
        connection: Option<ConnectionId>,
    },
    Ended {
        rule: StuckRule,
        room: String,
        lasted: Duration,
        connection: Option<ConnectionId>,
    },
    /// There is more than a log should say at once; nothing else is said of these.
    Further { cases: usize },
}

#[derive(Debug)]
struct Case {
    since: Moment,
    first_seen: Moment,
    last_seen: Moment,
    connection: Option<ConnectionId>,
    told: Told,
}

/// What the log has of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    NotYet,
    Began,
    /// It was one of those that were too many: neither its beginning nor its end is said.
    Counted,
}

type Key = (StuckRule, String, Option<super::view::Side>);

/// Remembers which cases are open and which of them were said.
#[derive(Debug, Default)]
pub struct Announcer {
    cases: HashMap<Key, Case>,
    began: HashMap<StuckRule, u64>,
    open: HashMap<StuckRule, u64>,
}

impl Announcer {
    /// Hears what is stuck at this moment, and answers what is to be said.
    pub fn hear(&mut self, found: &[Found], now: Moment) -> Vec<Said> {
        self.open.clear();
        let mut said = Vec::new();
        let mut cases = 0;
        for found in found {
            *self.open.entry(found.rule).or_default() += 1;
            let has_room = said.len() < LINES_MAX;
            let Some(case) = self.begins(found, now) else { continue };
            if has_room {
                case.told = Told::Began;
                said.push(Said::began(found));
            } else {
                case.told = Told::Counted;
                cases += 1;
            }
        }
        let room = LINES_MAX - said.len();
        said.extend(self.end_those_not_seen(room, now));
        if cases > 0 {
            said.push(Said::Further { cases });
        }
        said
    }

    /// Its case, where that is to be said now.
    fn begins(&mut self, found: &Found, now: Moment) -> Option<&mut Case> {
        let (rule, room, side) = found.key();
        let key = (rule, room.to_owned(), side);
        if !self.cases.contains_key(&key) {
            if self.cases.len() >= CASES_MAX {
                return None;
            }
            *self.began.entry(rule).or_default() += 1;
        }
        let case = self.cases.entry(key).or_insert_with(|| Case {
            since: found.since,
            first_seen: now,
            last_seen: now,
            connection: found.connection,
            told: Told::NotYet,
        });
        case.last_seen = now;
        let has_lasted = now.since(case.first_seen.min(found.since)) >= SAID_AFTER;
        (case.told == Told::NotYet && has_lasted && found.is_alarm()).then_some(case)
    }

    /// Forgets those that have ended. An end for which there is no room is said by a later look.
    fn end_those_not_seen(&mut self, mut room: usize, now: Moment) -> Vec<Said> {
        let mut ended: Vec<(Key, Case)> = self
            .cases
            .extract_if(|_, case| {
                let has_ended = now.since(case.last_seen) >= ENDED_AFTER;
                let is_to_be_said = case.told == Told::Began;
                let goes = has_ended && (!is_to_be_said || room > 0);
                room -= usize::from(goes && is_to_be_said);
                goes
            })
            .collect();
        ended.sort_by(|(a, _), (b, _)| (a.0, &a.1).cmp(&(b.0, &b.1)));
        ended
            .into_iter()
            .filter(|(_, case)| case.told == Told::Began)
            .map(|((rule, room, _), case)| Said::Ended {
                rule,
                room,
                lasted: case.last_seen.since(case.since),
                connection: case.connection,
            })
            .collect()
    }

    /// The cases by rule.
    pub fn counts(&self) -> Vec<(StuckRule, RuleCount)> {
        let count = |rule| {
            let of = |counts: &HashMap<StuckRule, u64>| counts.get(&rule).copied().unwrap_or(0);
            RuleCount {
                began: of(&self.began),
                open: of(&self.open),
            }
        };
        StuckRule::ALL.into_iter().map(|rule| (rule, count(rule))).collect()
    }
}

impl Said {
    fn began(found: &Found) -> Self {
        Self::Began {
            rule: found.rule,
            room: found.room.clone(),
            peer: found.peer.clone(),
            sentence: found.sentence.clone(),
            next: found.next.clone(),
            connection: found.connection,
        }
    }

    /// Writes it into the log.
    pub fn log(&self) {
        match self {
            Self::Began {
                rule,
                room,
                peer,
                sentence,
                next,
                connection,
            } => {
                let connection = connection.map(tracing::field::display);
                tracing::warn!(rule = rule.label(), room, peer, connection, next, "stuck: {sentence}");
            }
            Self::Ended {
                rule,
                room,
                lasted,
                connection,
            } => {
                let (connection, lasted) = (connection.map(tracing::field::display), lasting(*lasted));
                tracing::info!(rule = rule.label(), room, connection, lasted, "no longer stuck");
            }
            Self::Further { cases } => {
                tracing::warn!(cases, "more is stuck than the log says: see postern actors --stuck");
            }
        }
    }
}

#[cfg(test)]
mod tests;
