//! What holds in every world, whatever happens: said of the record alone.

use super::record::{Happened, What};
use super::rules;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a session may go on on a node whose rules deny it: last words to a client that does not read, on both nodes, and a
/// statement that PostgreSQL is at.
const DENIED_FOR: Duration = Duration::from_secs(6);
/// How long one end of a session may outlive the other: the longest deadline on the way to a relay, and a stall.
const OUTLIVES_BY: Duration = Duration::from_secs(45);

const STARTED: &str = "TDB00I";
const ENDED: &str = "TDB01I";
const ROUTED: &str = "PDB00I";
const RESULT: &str = "TDB10I";

/// The rules of one node from a moment on.
struct Held {
    node: usize,
    from: Duration,
    rules: usize,
}

/// What was true of one client.
#[derive(Default)]
struct Seen {
    who: Option<(&'static str, &'static str)>,
    /// By which rules each node may have decided about it.
    decided_by: Vec<(usize, usize)>,
    left: Option<Duration>,
    /// On the proxy's disk, on an agent's disk.
    routed: bool,
    started: bool,
}

/// A connection to PostgreSQL.
struct Dial {
    client: u64,
    agent: usize,
    from: Duration,
}

/// Goes through the record in its order.
#[derive(Default)]
struct Reader {
    held: Vec<Held>,
    /// Nodes, and rules that they may hold at this moment.
    may_hold: Vec<(usize, usize)>,
    clients: BTreeMap<u64, Seen>,
    open: BTreeMap<u64, Dial>,
    let_go: BTreeSet<u64>,
    broken: Vec<String>,
}

/// Everything that is wrong with a world, in words.
pub fn broken(happened: &[Happened]) -> Vec<String> {
    let mut reader = Reader {
        held: all_rules(happened),
        ..Reader::default()
    };
    for Happened { at, what } in happened {
        reader.read(*at, what);
    }
    let mut broken = reader.at_the_end();
    sessions_are_closed_once(happened, &mut broken);
    statements_are_audited(happened, &mut broken);
    answers_have_results(happened, &mut broken);
    broken
}

impl Reader {
    fn client(&mut self, client: u64) -> &mut Seen {
        self.clients.entry(client).or_default()
    }

    fn read(&mut self, at: Duration, what: &What) {
        match what {
            What::Connected {
                client,
                person,
                db_user,
            } => {
                let decided_by = self.may_hold.clone();
                let seen = self.client(*client);
                (seen.who, seen.decided_by) = (Some((*person, *db_user)), decided_by);
            }
            What::Told { node, rules } => {
                self.may_hold.push((*node, *rules));
                let waiting = self.clients.values_mut();
                waiting.for_each(|seen| seen.decided_by.push((*node, *rules)));
            }
            What::Rules { node, rules, .. } => {
                // Those that it was told of before are gone, and those that come later may be there already.
                let now = (*node, *rules);
                let at = self.may_hold.iter().position(|held| *held == now).unwrap_or(0);
                let mut place = 0;
                self.may_hold.retain(|held| {
                    place += 1;
                    held.0 != *node || place > at
                });
            }
            What::OnDisk {
                event,
                client: Some(client),
                ..
            } => {
                let seen = self.client(*client);
                seen.routed |= event == ROUTED;
                seen.started |= event == STARTED;
            }
            What::StartupSeen { client, dial, agent } => {
                let dial_of_it = Dial {
                    client: *client,
                    agent: *agent,
                    from: at,
                };
                self.before_postgres(&dial_of_it);
                if !self.let_go.contains(dial) {
                    self.open.insert(*dial, dial_of_it);
                }
            }
            What::StatementSeen { client, .. } if !self.client(*client).started => {
                let what = "a statement reached PostgreSQL before the session was on disk";
                self.broken.push(format!("client {client}: {what}"));
            }
            What::LetIn { client } if !self.client(*client).started => {
                let what = "was let in before its session was on disk";
                self.broken.push(format!("client {client} {what}"));
            }
            What::Left { client } => self.client(*client).left = Some(at),
            What::LetGo { dial } => {
                self.let_go.insert(*dial);
                if let Some(dial) = self.open.remove(dial) {
                    self.at_its_end(&dial, at);
                }
            }
            _ => {}
        }
    }

    /// Bytes before a permit.
    fn before_postgres(&mut self, Dial { client, agent, .. }: &Dial) {
        let seen = self.clients.entry(*client).or_default();
        if !seen.routed {
            let what = "reached PostgreSQL before the proxy's decision was on disk";
            self.broken.push(format!("client {client} {what}"));
        }
        let Some(who) = seen.who else {
            return self
                .broken
                .push(format!("client {client} reached PostgreSQL and never connected"));
        };
        for node in [0, *agent] {
            let mut rules = seen.decided_by.iter().filter(|(of, _)| *of == node);
            if rules.all(|(_, rules)| rules::denies(*rules, who.0, who.1)) {
                let what = format!("reached PostgreSQL although node {node} denied it from the beginning");
                self.broken.push(format!("client {client} {what}"));
            }
        }
    }

    /// Relays that outlive their connection, and sessions that outlive their permit.
    fn at_its_end(&mut self, Dial { client, agent, from }: &Dial, to: Duration) {
        let Some(seen) = self.clients.get(client) else { return };
        if let Some(left) = seen.left
            && to > left.max(*from) + OUTLIVES_BY
        {
            self.broken
                .push(format!("client {client} left at {left:?}, and its relay at {to:?}"));
        }
        let Some(who) = seen.who else { return };
        for node in [0, *agent] {
            let denied = denied_times(&self.held, node, who, (*from, to));
            if let Some(longest) = denied.into_iter().max().filter(|longest| *longest > DENIED_FOR) {
                let what = format!("went on for {longest:?} while node {node} had rules that deny it");
                self.broken.push(format!("client {client} {who:?} {what}"));
            }
        }
    }

    fn at_the_end(mut self) -> Vec<String> {
        for Dial { client, agent, .. } in self.open.values() {
            let what = format!("agent {agent} holds its connection to PostgreSQL still");
            self.broken.push(format!("client {client}: {what}"));
        }
        let stayed = |seen: &Seen| seen.who.is_some() && seen.left.is_none();
        for (client, _) in self.clients.iter().filter(|(_, seen)| stayed(seen)) {
            self.broken.push(format!("client {client} never left"));
        }
        self.broken
    }
}

fn all_rules(happened: &[Happened]) -> Vec<Held> {
    let news = happened.iter().filter_map(|Happened { at, what }| match what {
        What::Rules { node, rules, .. } => Some(Held {
            node: *node,
            from: *at,
            rules: *rules,
        }),
        _ => None,
    });
    news.collect()
}

/// The times at which a node held rules that deny this person this database user, within `(from, to)`.
fn denied_times(held: &[Held], node: usize, who: (&str, &str), (from, to): (Duration, Duration)) -> Vec<Duration> {
    let of_node: Vec<&Held> = held.iter().filter(|held| held.node == node).collect();
    let mut times: Vec<Duration> = Vec::new();
    // Rules that deny it and follow upon each other are one time.
    let mut goes_on = false;
    for (at, now) in of_node.iter().enumerate() {
        let until = of_node.get(at + 1).map_or(to, |next| next.from.min(to));
        let since = now.from.max(from);
        let denies = rules::denies(now.rules, who.0, who.1);
        if denies && until > since {
            match times.last_mut().filter(|_| goes_on) {
                Some(time) => *time += until - since,
                None => times.push(until - since),
            }
        }
        goes_on = denies;
    }
    times
}

fn sessions_are_closed_once(happened: &[Happened], broken: &mut Vec<String>) {
    let mut of_session: BTreeMap<(usize, &str), (u32, u32)> = BTreeMap::new();
    for Happened { what, .. } in happened {
        let What::OnDisk {
            node,
            event,
            sid: Some(sid),
            ..
        } = what
        else {
            continue;
        };
        let (started, ended) = of_session.entry((*node, sid.as_str())).or_default();
        match event.as_str() {
            STARTED => *started += 1,
            ENDED if *started == 0 => broken.push(format!("session {sid} is closed on node {node} before it is open")),
            ENDED => *ended += 1,
            _ => {}
        }
    }
    for ((node, sid), (started, ended)) in of_session {
        if started > 1 || started != ended {
            broken.push(format!(
                "session {sid} of node {node} is audited as opened {started} times and as closed {ended} times"
            ));
        }
    }
}

fn statements_are_audited(happened: &[Happened], broken: &mut Vec<String>) {
    let strictly: BTreeSet<u64> = happened
        .iter()
        .filter_map(|Happened { what, .. }| match what {
            What::Connected { client, person, .. } if *person == rules::STRICTLY_AUDITED => Some(*client),
            _ => None,
        })
        .collect();
    for (at, Happened { what, .. }) in happened.iter().enumerate() {
        let What::StatementSeen { client, statement } = what else {
            continue;
        };
        let is_it =
            |other: &Happened| matches!(&other.what, What::OnDisk { statement: Some(text), .. } if text == statement);
        if !happened.iter().any(is_it) {
            broken.push(format!("{statement:?} reached PostgreSQL and is not on the audit log"));
        } else if strictly.contains(client) && !happened[..at].iter().any(is_it) {
            broken.push(format!(
                "{statement:?} reached PostgreSQL before it was on disk, in strict mode"
            ));
        }
    }
}

/// What a client has read the answer of has one result on the log, and each result is that of a statement there.
fn answers_have_results(happened: &[Happened], broken: &mut Vec<String>) {
    let (mut asked, mut results) = (BTreeSet::new(), BTreeMap::<_, u32>::new());
    for Happened { what, .. } in happened {
        let What::OnDisk {
            event,
            client: Some(client),
            requests,
            ..
        } = what
        else {
            continue;
        };
        for request in requests {
            match event.as_str() {
                RESULT => *results.entry((*client, *request)).or_default() += 1,
                _ => _ = asked.insert((*client, *request)),
            }
        }
    }
    for Happened { what, .. } in happened {
        if let What::Answered { client, request } = what
            && !results.contains_key(&(*client, *request))
        {
            broken.push(format!(
                "client {client} has read the answer to request {request}, which has no result"
            ));
        }
    }
    for ((client, request), times) in results {
        if times > 1 || !asked.contains(&(client, request)) {
            broken.push(format!(
                "request {request} of client {client} has {times} results, or was never asked"
            ));
        }
    }
}
