//! Relays whose bytes do not move, and because of whom.

use super::super::look::{DatabaseFact, Lacks, RelayLook, Snapshot, side_of};
use super::super::relays::{RelaySpec, WaitsFor};
use super::super::view::Side;
use super::{
    Found, HALF_OPEN_AFTER, LEAKED_AFTER, NO_PROGRESS_AFTER, SINK_STILL_AFTER, SINK_STILL_ALARMS_AFTER, StuckRule,
    UPSTREAM_SICK_AFTER, UPSTREAM_SILENT_AFTER, lasting, next_about,
};
use crate::model::Moment;
use std::collections::HashSet;

pub fn find(look: &Snapshot, found: &mut Vec<Found>) {
    let first = found.len();
    for relay in &look.relays {
        let relay = Seen { relay, look };
        let rules = [
            relay.spool_full(),
            relay.upstream_takes_nothing(),
            relay.client_takes_nothing(),
            relay.half_open(),
            relay.upstream_silent(),
            relay.no_progress(),
            relay.leaked(),
        ];
        found.extend(rules.into_iter().flatten());
    }
    // Where one process has both relays of a connection, the agent's says who is silent; the proxy's would say it again.
    let told: HashSet<_> = found[first..]
        .iter()
        .filter(|found| is_silence(found, Side::Agent))
        .map(|found| found.connection)
        .collect();
    found.retain(|found| !(is_silence(found, Side::Proxy) && told.contains(&found.connection)));
}

fn is_silence(found: &Found, side: Side) -> bool {
    found.rule == StuckRule::UpstreamSilent && found.side == Some(side)
}

struct Seen<'a> {
    relay: &'a RelayLook,
    look: &'a Snapshot,
}

impl Seen<'_> {
    fn spec(&self) -> &RelaySpec {
        &self.relay.gauge.spec
    }

    /// Whose it is, as people and `pg_stat_activity` call it.
    fn of_whom(&self) -> String {
        let spec = self.spec();
        format!(
            "{} ({}, process {})",
            spec.whose.user, spec.whose.database, spec.process_id
        )
    }

    fn age(&self, since: Moment) -> String {
        lasting(self.look.now.since(since))
    }

    fn found(&self, rule: StuckRule, peer: &str, since: Moment, sentence: String, next: String) -> Found {
        Found {
            rule,
            room: format!("connection {}", self.spec().connection),
            peer: peer.to_owned(),
            sentence,
            next,
            since,
            connection: Some(self.spec().connection),
            side: Some(self.spec().side),
            alarms: false,
        }
    }

    /// What asks PostgreSQL about this session.
    fn ask_postgres(&self) -> String {
        let (spec, pid) = (self.spec(), self.spec().process_id);
        let ask = format!(
            "select state, wait_event_type, wait_event, query from pg_stat_activity where pid = {pid}; select pg_blocking_pids({pid})"
        );
        match spec.side {
            Side::Agent | Side::Auth => format!("on {}: {ask}", spec.upstream),
            Side::Proxy => format!(
                "on the PostgreSQL of {} behind {}: {ask}",
                spec.whose.database, spec.upstream
            ),
        }
    }

    /// The client, from here: itself on the proxy, by way of the proxy on the agent.
    fn client(&self) -> String {
        let spec = self.spec();
        match spec.side {
            Side::Proxy => format!("client {}", spec.whose.client),
            Side::Agent | Side::Auth => "the proxy".to_owned(),
        }
    }

    fn look_at_client(&self, at_what: &str) -> String {
        let spec = self.spec();
        format!(
            "look at {}'s program at {}: {at_what}",
            spec.whose.user, spec.whose.client
        )
    }

    fn health(&self) -> Option<&DatabaseFact> {
        let databases = &self.look.facts.databases;
        databases
            .iter()
            .find(|fact| fact.database == self.spec().whose.database)
    }

    fn upstream_silent(&self) -> Option<Found> {
        let relay = self.relay;
        let since = relay.still_since();
        let both_wait =
            relay.to_upstream.waits_for == WaitsFor::Source && relay.to_client.waits_for == WaitsFor::Source;
        let owed = relay.state == "busy" && both_wait;
        let sick = self.health().filter(|fact| !fact.healthy);
        let limit = match sick {
            Some(_) => UPSTREAM_SICK_AFTER,
            None => UPSTREAM_SILENT_AFTER,
        };
        if !owed || self.look.now.since(since) <= limit {
            return None;
        }
        let (upstream, whom, age) = (&self.spec().upstream, self.of_whom(), self.age(since));
        let said = format!("{upstream} has sent nothing for {age} to the query of {whom}");
        if relay.answered && sick.is_none() {
            // A request without its end (Flush in place of Sync) is answered as far as it goes: then it is the client's turn.
            return None;
        }
        let (sentence, next) = match sick {
            Some(fact) => (
                format!("{said}, and the agent's own looks at it fail, too: {}", fact.detail),
                next_about(upstream),
            ),
            None => (
                format!("{said}: the query runs, waits for a lock, or PostgreSQL hangs"),
                self.ask_postgres(),
            ),
        };
        let mut found = self.found(StuckRule::UpstreamSilent, upstream, since, sentence, next);
        found.alarms = sick.is_some();
        Some(found)
    }

    fn client_takes_nothing(&self) -> Option<Found> {
        let way = self.relay.to_client;
        if way.waits_for != WaitsFor::Sink || self.look.now.since(way.since) <= SINK_STILL_AFTER {
            return None;
        }
        let (client, age, whom) = (self.client(), self.age(way.since), self.of_whom());
        let next = match self.spec().side {
            Side::Proxy => {
                self.look_at_client("it reads slowly, or not at all (a pager, a breakpoint), or its network is slow")
            }
            Side::Agent | Side::Auth => self.look_at_client("does it read its result? If it does, look at the proxy"),
        };
        let sentence =
            format!("{client} has taken nothing more of its result for {age}: it reads slowly, or not at all; {whom}");
        let mut found = self.found(StuckRule::ClientNotReading, &client, way.since, sentence, next);
        found.alarms = self.look.now.since(way.since) > SINK_STILL_ALARMS_AFTER;
        Some(found)
    }

    fn upstream_takes_nothing(&self) -> Option<Found> {
        let way = self.relay.to_upstream;
        if way.waits_for != WaitsFor::Sink || self.look.now.since(way.since) <= SINK_STILL_AFTER {
            return None;
        }
        let spec = self.spec();
        let (upstream, age, whom) = (&spec.upstream, self.age(way.since), self.of_whom());
        let next = match spec.side {
            Side::Agent | Side::Auth => self.ask_postgres(),
            Side::Proxy => next_about(upstream),
        };
        let sentence = format!("{upstream} has taken nothing for {age} of what {whom} sends");
        Some(self.found(StuckRule::StreamBacklog, upstream, way.since, sentence, next))
    }

    /// What was read is held back until the audit spool has room.
    fn spool_full(&self) -> Option<Found> {
        let ways = [self.relay.to_upstream, self.relay.to_client];
        let way = ways.into_iter().find(|way| way.waits_for == WaitsFor::Audit)?;
        if self.look.now.since(way.since) <= SINK_STILL_AFTER {
            return None;
        }
        let (age, whom) = (self.age(way.since), self.of_whom());
        let sentence = format!("a statement of {whom} has been held back for {age} until the audit spool has room");
        let next = "postern actor audit; is the disk of the data directory full or slow, and does auth take events?";
        Some(self.found(
            StuckRule::StoreSlow,
            "the audit spool",
            way.since,
            sentence,
            next.to_owned(),
        ))
    }

    fn half_open(&self) -> Option<Found> {
        let relay = self.relay;
        let (gone, other, still_open) = match (relay.to_upstream.waits_for, relay.to_client.waits_for) {
            (WaitsFor::Done, WaitsFor::Done) => return None,
            (WaitsFor::Done, _) => (self.client(), relay.to_client, self.spec().upstream.clone()),
            (_, WaitsFor::Done) => (self.spec().upstream.clone(), relay.to_upstream, self.client()),
            _ => return None,
        };
        let since = relay.still_since();
        if self.look.now.since(since) <= HALF_OPEN_AFTER {
            return None;
        }
        let (age, whom, waits) = (self.age(since), self.of_whom(), other.waits_for.label());
        let sentence = format!(
            "{gone} has closed its side of the session of {whom}, and {still_open} has neither closed nor moved for {age} (waits for {waits})"
        );
        let next = if gone == self.spec().upstream {
            next_about(&still_open)
        } else {
            self.ask_postgres()
        };
        Some(self.found(StuckRule::HalfOpen, &still_open, since, sentence, next))
    }

    /// In the middle of something, and nobody to be waited for.
    fn no_progress(&self) -> Option<Found> {
        let relay = self.relay;
        let since = relay.still_since();
        let both_wait =
            relay.to_upstream.waits_for == WaitsFor::Source && relay.to_client.waits_for == WaitsFor::Source;
        if self.look.now.since(since) <= NO_PROGRESS_AFTER {
            return None;
        }
        let (age, whom, client) = (self.age(since), self.of_whom(), self.client());
        let (sentence, next, alarms) = match relay.state {
            "sending" if both_wait => (
                format!("{client} has sent nothing more of its COPY or request for {age}: it pauses; {whom}"),
                self.look_at_client(
                    "it has begun a COPY or a request and does not go on (it waits for its own input, or is stopped)",
                ),
                false,
            ),
            "closing" => (
                format!("the session of {whom} has been ending for {age} without a byte"),
                self.look_at_client("has it ended, and is its network up?"),
                true,
            ),
            _ => return None,
        };
        let mut found = self.found(StuckRule::NoProgress, &client, since, sentence, next);
        found.alarms = alarms;
        Some(found)
    }

    fn leaked(&self) -> Option<Found> {
        let (lacks, since) = self.relay.lacks?;
        if self.look.now.since(since) <= LEAKED_AFTER {
            return None;
        }
        let (age, whom, connection) = (self.age(since), self.of_whom(), self.spec().connection);
        let why = match lacks {
            Lacks::Actor => "has no actor any more",
            Lacks::Session => "is in no list of sessions, so that nobody can end it",
        };
        let sentence = format!("the relay of {whom} {why} (for {age}): it is left over");
        let next =
            format!("this is a fault of postern: please report it with the output of postern trace {connection}");
        let owner = self
            .look
            .actors
            .iter()
            .find(|actor| actor.connection == Some(connection) && side_of(actor.kind()) == Some(self.spec().side));
        let peer = owner.map_or_else(|| "nobody".to_owned(), |actor| actor.path.to_string());
        Some(self.found(StuckRule::LeakedRelay, &peer, since, sentence, next))
    }
}
