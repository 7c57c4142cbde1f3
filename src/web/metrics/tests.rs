//! The names and the form of the metrics, and that the page of the documentation has each.

use super::*;
use crate::actors::policy::PolicyStock;
use crate::model::Moment;
use crate::telemetry::label::Label;
use crate::telemetry::observe::{About, Observer};
use crate::telemetry::registry::{Seat, SeatSpec};
use std::collections::{BTreeMap, BTreeSet};

fn shown() -> String {
    shown_with(Observer::new(About::default()))
}

fn shown_with(observer: Observer) -> String {
    let sources = Sources {
        policy: PolicyStock::default().view(SystemClock::shared()),
        observer: observer.shared(),
        parts: Arc::default(),
    };
    text(&sources).expect("metrics")
}

/// Every metric by its name, with its type.
fn described(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            (format!("{name}{suffix}"), kind.to_owned())
        })
        .collect()
}

/// The metric of a sample: its name without what a histogram adds to it.
fn metric_of<'s>(sample: &'s str, described: &BTreeMap<String, String>) -> Option<&'s str> {
    let name = sample.split(['{', ' ']).next().unwrap_or_default();
    let bases = ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix));
    [name]
        .into_iter()
        .chain(bases)
        .find(|name| described.contains_key(*name))
}

#[test]
fn every_sample_is_described_and_has_a_name_as_prometheus_wants_it() {
    let text = shown();
    let described = described(&text);
    assert!(text.ends_with("# EOF\n"), "{text}");
    for (name, kind) in &described {
        assert!(name.starts_with("postern_") || name.starts_with("process_"), "{name}");
        let base = name.trim_end_matches("_total");
        assert!(text.contains(&format!("# HELP {base} ")), "{name} says what it is");
        assert!(
            !base.contains("_total") && (kind == "counter") == name.ends_with("_total"),
            "{name} {kind}"
        );
        for unit in ["_ms", "_milliseconds", "_minutes", "_kilobytes", "_mib", "_percent"] {
            assert!(!base.ends_with(unit), "{name} has no base unit");
        }
        for quantity in ["duration", "age", "time", "timestamp"] {
            let measured = base.split('_').any(|word| word == quantity);
            assert!(!measured || base.ends_with("_seconds"), "{name} is in seconds");
        }
        assert!(kind != "histogram" || base.ends_with("_seconds"), "{name}");
    }
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(metric_of(sample, &described).is_some(), "{sample}");
        let value = sample.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some_and(f64::is_finite), "{sample}");
    }
}

#[test]
fn a_histogram_counts_up_to_infinity() {
    let text = shown();
    assert!(
        text.contains("postern_audit_fsync_duration_seconds_bucket{le=\"+Inf\"}"),
        "{text}"
    );
    assert!(text.contains("postern_store_operation_duration_seconds_bucket{le=\"0.0001\",operation=\"get\"}"));
}

#[test]
fn what_is_stuck_is_counted_by_the_rule_that_found_it() {
    let seat = Seat::take(SeatSpec {
        path: "metrics-tests/slow".into(),
        rule: "permanent",
        bound: 8,
    });
    let now = Moment::now();
    seat.takes(Label::of("Tested"), None, now);
    let mut observer = Observer::new(About::default());
    observer.watch_at(Moment::from_nanos(now.as_nanos() + 60_000_000_000));
    let text = shown_with(observer);
    // Other tests of this process may have something in hand, too.
    for name in ["postern_stuck_findings_open", "postern_stuck_findings_total"] {
        let sample = format!("{name}{{rule=\"handler_slow\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&sample));
        let count: f64 = value.and_then(|value| value.parse().ok()).unwrap_or_default();
        assert!(count >= 1.0, "{name} in {text}");
    }
}

#[test]
fn the_page_for_operators_has_every_metric_with_its_type_and_labels() {
    let text = shown();
    let page = include_str!("../../../docs/operating.md");
    let section = page.split("\n## Metrics\n").nth(1).expect("the section");
    let section = section.split("What to be called for").next().expect("its table");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: BTreeMap<&str, Vec<&str>> = rows
        .filter_map(|row| row.split_once("` | "))
        .map(|(name, rest)| (name, rest.split(" | ").collect()))
        .collect();
    let described = described(&text);
    let listed: BTreeSet<&str> = rows.keys().copied().collect();
    let there: BTreeSet<&str> = described.keys().map(String::as_str).collect();
    assert_eq!(listed, there, "docs/operating.md, Metrics, and what is shown");
    for (name, kind) in &described {
        assert_eq!(rows[name.as_str()][0], kind, "{name}");
        let of_metric = |line: &&str| metric_of(line, &described) == Some(name) && !line.starts_with('#');
        for sample in text.lines().filter(of_metric) {
            let inside = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            let labels = inside
                .map_or("", |(inside, _)| inside)
                .split(',')
                .filter_map(|pair| pair.split_once('='));
            for (label, _) in labels.filter(|(label, _)| *label != "le") {
                assert!(rows[name.as_str()][1].contains(&format!("`{label}`")), "{name} {label}");
            }
        }
    }
}
