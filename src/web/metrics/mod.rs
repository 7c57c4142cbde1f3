//! `/metrics`: what this process counts, and how its parts are at the moment of the question.

mod actors;
mod page;

use crate::actors::databases::DatabasesView;
use crate::actors::identity::IdentityView;
use crate::actors::policy::PolicyView;
use crate::audit::{Spool, SpoolState};
use crate::model::{Clock as _, SharedClock, SystemClock, Timestamp};
use crate::protocol::tunnel::HealthState;
use crate::telemetry::announce::RuleCount;
use crate::telemetry::metrics::{METRICS, SessionMetrics};
use crate::telemetry::observe::SharedObserver;
use crate::telemetry::stuck::StuckRule;
use crate::telemetry::{process, pulse};
use page::{Page, number};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What [`text`] is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The parts of a node that are there once it has an identity.
pub struct NodeParts {
    pub spool: Spool,
    pub identity: IdentityView,
    pub databases: DatabasesView,
    pub clock: SharedClock,
    /// Its sessions come by tunnels only.
    pub needs_tunnel: bool,
}

/// What is asked when somebody asks.
#[derive(Clone)]
pub struct Sources {
    pub policy: PolicyView,
    pub observer: SharedObserver,
    pub parts: Arc<OnceLock<NodeParts>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// All metrics of this process.
///
/// # Errors
/// One of them cannot be written.
pub fn text(sources: &Sources) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources.clone()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        process_metrics(&mut page)?;
        connection_metrics(&mut page)?;
        session_metrics(&mut page)?;
        control_metrics(&mut page)?;
        store_metrics(&mut page)?;
        self.audit_metrics(&mut page)?;
        self.policy_metrics(&mut page)?;
        self.node_metrics(&mut page)?;
        self.stuck_metrics(&mut page)?;
        actors::actor_metrics(&mut page)
    }
}

fn seconds(at: Timestamp) -> f64 {
    Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0)).as_secs_f64()
}

fn level(level: i64) -> Option<f64> {
    Some(number(u64::try_from(level).unwrap_or(0)))
}

fn process_metrics(page: &mut Page<'_>) -> fmt::Result {
    let usage = process::usage();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.gauges(
        ("postern_build_info", "The version that runs; always 1."),
        [(version, 1.0)],
    )?;
    page.counter(
        (
            "process_cpu_seconds",
            "Processor time of the process, of user and system.",
        ),
        usage.cpu_seconds,
    )?;
    page.gauge(
        ("process_resident_memory_bytes", "Memory that the process has in RAM."),
        usage.resident_bytes.map(number),
    )?;
    page.gauge(
        ("process_open_fds", "Open file descriptors."),
        usage.open_fds.map(number),
    )?;
    page.gauge(("process_max_fds", "How many may be open."), usage.max_fds.map(number))?;
    page.gauge(
        ("process_start_time_seconds", "When the process started, in Unix time."),
        Some(seconds(process::started())),
    )?;
    page.gauge(
        ("postern_time_seconds", "The clock of this machine, in Unix time."),
        Some(seconds(SystemClock.now())),
    )?;
    let runtimes = pulse::all();
    let turns = runtimes
        .iter()
        .map(|(name, still)| ([("runtime", name.as_str())], still.as_secs_f64()));
    page.gauges(
        (
            "postern_runtime_last_turn_seconds",
            "How long ago each runtime turned; 1 or less is well.",
        ),
        turns,
    )
}

fn connection_metrics(page: &mut Page<'_>) -> fmt::Result {
    let kinds = METRICS
        .connections
        .all()
        .map(|(kind, count)| ([("kind", kind)], number(count)));
    page.counters(
        (
            "postern_connections_accepted",
            "Connections by what they turned out to be.",
        ),
        kinds,
    )?;
    page.counter(
        (
            "postern_connections_turned_away",
            "Connections closed at once, because as many as may be were open.",
        ),
        Some(number(METRICS.connections_turned_away.get())),
    )?;
    page.counter(
        (
            "postern_strangers_turned_away",
            "Connections closed at once, because as many of their address as may be had not shown yet who they are.",
        ),
        Some(number(METRICS.strangers_turned_away.get())),
    )?;
    let outcomes = METRICS
        .cancels
        .all()
        .map(|(outcome, count)| ([("outcome", outcome)], number(count)));
    page.counters(("postern_cancels", "CancelRequests of clients (Ctrl-C)."), outcomes)
}

/// The services that have sessions.
fn sides() -> [(&'static str, &'static SessionMetrics); 2] {
    [("proxy", &METRICS.proxy), ("agent", &METRICS.agent)]
}

fn session_metrics(page: &mut Page<'_>) -> fmt::Result {
    let open = sides().map(|(side, of)| ([("side", side)], level(of.open.get()).unwrap_or(0.0)));
    page.gauges(("postern_sessions_open", "Sessions that are open."), open)?;
    let opened = sides().map(|(side, of)| ([("side", side)], number(of.opened.get())));
    page.counters(("postern_sessions_opened", "Sessions that were opened."), opened)?;
    let ended = sides().into_iter().flat_map(|(side, of)| {
        let others = [("finished", of.finished.get()), ("failed", of.failed.get())];
        let reasons = of.ended.all().chain(others);
        reasons.map(move |(reason, count)| ([("side", side), ("reason", reason)], number(count)))
    });
    page.counters(("postern_sessions_ended", "Sessions that ended, by why."), ended)?;
    let refused = sides().into_iter().flat_map(|(side, of)| {
        let kinds = of.refused.all();
        kinds.map(move |(kind, count)| ([("side", side), ("kind", kind)], number(count)))
    });
    page.counters(
        (
            "postern_sessions_refused",
            "Sessions that were refused, by the label of the refusal.",
        ),
        refused,
    )?;
    page.durations(
        (
            "postern_session_open_duration_seconds",
            "From an accepted connection to its session, on a proxy.",
        ),
        [([], &METRICS.session_opening)],
    )?;
    let bytes = sides().into_iter().flat_map(|(side, of)| {
        let both = [
            ("to_upstream", &of.bytes_to_upstream),
            ("to_client", &of.bytes_to_client),
        ];
        both.map(|(direction, count)| ([("side", side), ("direction", direction)], number(count.get())))
    });
    page.counters(
        ("postern_relayed_bytes", "Bytes of sessions, counted when one ends."),
        bytes,
    )
}

fn control_metrics(page: &mut Page<'_>) -> fmt::Result {
    let logins = METRICS
        .logins
        .all()
        .map(|(outcome, count)| ([("outcome", outcome)], number(count)));
    page.counters(("postern_logins", "Logins with password and code, on auth."), logins)?;
    let kinds = METRICS
        .certificates
        .all()
        .map(|(kind, count)| ([("kind", kind)], number(count)));
    page.counters(("postern_certificates_issued", "Certificates that auth issued."), kinds)?;
    page.counter(
        ("postern_certificates_refused", "Certificates that auth did not issue."),
        Some(number(METRICS.certificates_refused.get())),
    )?;
    page.gauge(
        ("postern_tunnels_up", "Tunnels of agents, on a proxy."),
        level(METRICS.tunnels.get()),
    )?;
    page.gauge(
        ("postern_links_up", "Links of nodes, on auth."),
        level(METRICS.links.get()),
    )?;
    page.gauge(
        ("postern_dialers_connected", "Tunnels to proxies, on an agent."),
        level(METRICS.dialers.get()),
    )
}

fn store_metrics(page: &mut Page<'_>) -> fmt::Result {
    let operations = METRICS
        .store
        .all()
        .map(|(operation, took)| ([("operation", operation)], took));
    page.durations(
        (
            "postern_store_operation_duration_seconds",
            "Operations of the store, on auth.",
        ),
        operations,
    )?;
    let errors = METRICS
        .store_errors
        .all()
        .map(|(operation, count)| ([("operation", operation)], number(count)));
    page.counters(("postern_store_errors", "Operations of the store that failed."), errors)
}

impl Sources {
    /// As of the last look, a second ago at most.
    fn stuck_metrics(&self, page: &mut Page<'_>) -> fmt::Result {
        let counts = self.observer.observer().counts();
        let of_rules = |what: fn(&RuleCount) -> u64| {
            let of_rule = move |(rule, count): &(StuckRule, RuleCount)| ([("rule", rule.label())], number(what(count)));
            counts.iter().map(of_rule)
        };
        page.gauges(
            (
                "postern_stuck_findings_open",
                "What is stuck now, by the rule that found it.",
            ),
            of_rules(|count| count.open),
        )?;
        page.counters(
            (
                "postern_stuck_findings",
                "What was found to be stuck, by the rule that found it.",
            ),
            of_rules(|count| count.began),
        )
    }

    fn audit_metrics(&self, page: &mut Page<'_>) -> fmt::Result {
        let parts = self.parts.get();
        let classes = METRICS
            .audit_events
            .all()
            .map(|(class, count)| ([("class", class)], number(count)));
        page.counters(
            (
                "postern_audit_events_written",
                "Audit events of this node, by the class of their code.",
            ),
            classes,
        )?;
        page.gauge(
            ("postern_audit_queue_bytes", "Audit events in memory, not yet fsynced."),
            parts.map(|parts| number(parts.spool.queued_bytes())),
        )?;
        let backlog = parts.map(|parts| parts.spool.backlog());
        page.gauge(
            (
                "postern_audit_unshipped_events",
                "Audit events that auth has not confirmed.",
            ),
            backlog.map(|(events, _)| number(events)),
        )?;
        page.gauge(
            (
                "postern_audit_spool_bytes",
                "What the spool has on disk; a segment goes when auth has confirmed all of it.",
            ),
            backlog.map(|(_, bytes)| number(bytes)),
        )?;
        let age = |parts: &NodeParts| {
            let oldest = parts.spool.oldest_unshipped();
            oldest.map_or(0.0, |at| parts.clock.now().since(at).as_secs_f64())
        };
        page.gauge(
            (
                "postern_audit_oldest_unshipped_age_seconds",
                "How long the oldest event waits for auth; 0 without one.",
            ),
            parts.map(age),
        )?;
        let is_blocked = |parts: &NodeParts| f64::from(u8::from(parts.spool.state() != SpoolState::Open));
        page.gauge(
            (
                "postern_audit_blocked",
                "1 while the spool takes no events, and so nobody gets in.",
            ),
            parts.map(is_blocked),
        )?;
        page.durations(
            (
                "postern_audit_fsync_duration_seconds",
                "How long an fsync of the spool takes.",
            ),
            [([], &METRICS.audit_fsync)],
        )
    }

    fn policy_metrics(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            (
                "postern_policy_version",
                "The version of the rules that this node decides by.",
            ),
            self.policy.version().map(number),
        )?;
        page.gauge(
            (
                "postern_policy_confirmed_age_seconds",
                "How long ago auth said that these rules are the newest.",
            ),
            self.policy.confirmed_ago().map(|ago| ago.as_secs_f64()),
        )?;
        page.gauge(
            ("postern_locks_in_force", "Locks in force."),
            self.policy
                .locks_in_force()
                .and_then(|locks| u64::try_from(locks).ok())
                .map(number),
        )
    }

    fn node_metrics(&self, page: &mut Page<'_>) -> fmt::Result {
        let parts = self.parts.get();
        page.gauge(
            (
                "postern_host_certificate_expiry_timestamp_seconds",
                "When the certificate of this node ends, in Unix time.",
            ),
            parts.map(|parts| seconds(parts.identity.in_use().identity.valid_until)),
        )?;
        let health = parts.map(|parts| parts.databases.health()).unwrap_or_default();
        let states = [
            ("healthy", HealthState::Healthy),
            ("unhealthy", HealthState::Unhealthy),
            ("unknown", HealthState::Unknown),
        ];
        let counts = states.map(|(label, state)| {
            let count = health.iter().filter(|health| health.state == state).count();
            ([("health", label)], number(u64::try_from(count).unwrap_or(0)))
        });
        page.gauges(
            (
                "postern_databases",
                "Databases that this agent serves, by their health.",
            ),
            counts,
        )
    }
}

#[cfg(test)]
mod tests;
