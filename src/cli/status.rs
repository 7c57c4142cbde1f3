//! `postern ctl status`: what the cluster is, what of it is not well, and what ends soon.

use super::admin_client::AdminClient;
use super::ctl::{Format, print_as, table};
use super::names::Program;
use super::terminal::{counted, one_line};
use super::{Failure, Outcome};
use crate::model::Timestamp;
use crate::web::api::{AuthorityStatus, HealthWord, NodeStatus, Status};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// What ends within this time is listed: a month leaves room for a change on somebody else's database.
pub const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// What the certificate of a database server is made for when nothing speaks against it: three months.
pub const DATABASE_TTL: &str = "2190h";

/// What is printed; the fields of JSON and YAML are the parts of the text.
#[derive(Debug, Serialize)]
struct Report<'a> {
    cluster: &'a str,
    version: &'a str,
    ca_pins: &'a [String],
    policy_version: Option<u64>,
    authorities: &'a [AuthorityStatus],
    nodes: Nodes,
    databases: Databases<'a>,
    other_versions: Vec<OtherVersion<'a>>,
    ends_soon: Vec<EndsSoon>,
}

#[derive(Debug, Serialize)]
struct Nodes {
    total: usize,
    auth: usize,
    proxy: usize,
    agent: usize,
}

/// Each agent's view of each database that it serves counts.
#[derive(Debug, Serialize)]
struct Databases<'a> {
    total: usize,
    healthy: usize,
    unhealthy: usize,
    unknown: usize,
    not_healthy: Vec<Unwell<'a>>,
}

#[derive(Debug, Serialize)]
struct Unwell<'a> {
    database: &'a str,
    agent: &'a str,
    detail: &'a str,
    since: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct OtherVersion<'a> {
    node: &'a str,
    version: &'a str,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct EndsSoon {
    what: String,
    until: String,
    /// What to do about it.
    renew: String,
}

pub async fn print(client: &AdminClient, program: Program, format: Format) -> Outcome {
    let status: Status = client.get("/v1/status", &serde_json::Value::Null).await?;
    let report = report(&status, program)?;
    if format != Format::Text {
        return print_as(&report, format);
    }
    print!("{}", text(&report));
    Ok(())
}

fn report(status: &Status, program: Program) -> Result<Report<'_>, Failure> {
    let now = time(&status.time)?;
    let nodes = &status.nodes;
    let of_kind = |kind: &str| nodes.iter().filter(|node| node.kinds.iter().any(|k| k == kind)).count();
    let others = nodes
        .iter()
        .filter(|node| node.version != status.version && !node.version.is_empty());
    Ok(Report {
        cluster: &status.cluster,
        version: &status.version,
        ca_pins: &status.ca_pins,
        policy_version: status.policy_version,
        authorities: &status.authorities,
        nodes: Nodes {
            total: nodes.len(),
            auth: of_kind("auth"),
            proxy: of_kind("proxy"),
            agent: of_kind("db"),
        },
        databases: databases(nodes),
        other_versions: others
            .map(|node| OtherVersion {
                node: &node.name,
                version: &node.version,
            })
            .collect(),
        ends_soon: ends_soon(status, now, program)?,
    })
}

fn time(text: &str) -> Result<Timestamp, Failure> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| Failure::internal(format!("auth's answer has no time but {text:?}")))
}

fn databases(nodes: &[NodeStatus]) -> Databases<'_> {
    let all = || {
        nodes
            .iter()
            .flat_map(|node| node.databases.iter().map(move |d| (node, d)))
    };
    let of_state = |state: HealthWord| all().filter(|(_, database)| database.health.state == state).count();
    let unwell = all().filter(|(_, database)| database.health.state == HealthWord::Unhealthy);
    Databases {
        total: all().count(),
        healthy: of_state(HealthWord::Healthy),
        unhealthy: of_state(HealthWord::Unhealthy),
        unknown: of_state(HealthWord::Unknown),
        not_healthy: unwell
            .map(|(node, database)| Unwell {
                database: &database.name,
                agent: &node.name,
                detail: &database.health.detail,
                since: database.health.since.as_deref(),
            })
            .collect(),
    }
}

/// Soonest first. What has ended already is in it too.
fn ends_soon(status: &Status, now: Timestamp, program: Program) -> Result<Vec<EndsSoon>, Failure> {
    let last = now + SOON;
    let mut found = BTreeMap::new();
    for authority in &status.authorities {
        let until = time(&authority.valid_until)?;
        if until <= last {
            let what = format!("the {} authority", authority.authority);
            let renew =
                "this version renews no authority; begin a new cluster before that day, and let its nodes join anew";
            found.insert((until, what), renew.to_owned());
        }
    }
    for node in &status.nodes {
        for database in &node.databases {
            let Some(text) = &database.health.certificate_until else {
                continue;
            };
            let until = time(text)?;
            if until <= last {
                // Several agents of one database see one certificate.
                let what = format!("the server certificate of database {:?}", database.name);
                found.insert((until, what), renew_database(program, &database.uri));
            }
        }
    }
    let listed = found.into_iter().map(|((until, what), renew)| EndsSoon {
        what,
        until: until.to_string(),
        renew,
    });
    Ok(listed.collect())
}

/// The command for the certificate of the server that `uri` names.
fn renew_database(program: Program, uri: &str) -> String {
    let host = uri.rsplit_once(':').map_or(uri, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    let ctl = program.ctl();
    format!("{ctl} auth sign --format=db --host={host} --ttl={DATABASE_TTL} --out=server")
}

fn text(report: &Report<'_>) -> String {
    // Writing to a String cannot fail.
    let mut out = String::new();
    let _ = writeln!(out, "Cluster  {}", one_line(report.cluster));
    let _ = writeln!(out, "Version  {}", one_line(report.version));
    for pin in report.ca_pins {
        let _ = writeln!(out, "CA pin   {}", one_line(pin));
    }
    let mut authorities = table(&["Authority", "Rotation", "Algorithm", "Valid until"]);
    for authority in report.authorities {
        authorities.add_row([
            one_line(&authority.authority),
            one_line(&authority.rotation),
            one_line(&authority.algorithm),
            one_line(&authority.valid_until),
        ]);
    }
    let _ = writeln!(out, "\n{authorities}\n\n{}", nodes_line(&report.nodes));
    for other in &report.other_versions {
        let _ = writeln!(
            out,
            "  {} runs version {}, auth runs {}",
            one_line(other.node),
            one_line(other.version),
            one_line(report.version)
        );
    }
    out += &databases_text(&report.databases);
    if !report.ends_soon.is_empty() {
        let _ = writeln!(out, "\nEnds within {} days:", SOON.as_secs() / (24 * 3600));
    }
    for end in &report.ends_soon {
        let (what, until, renew) = (one_line(&end.what), one_line(&end.until), one_line(&end.renew));
        let _ = writeln!(out, "  {what}, on {until}\n    renew: {renew}");
    }
    out
}

fn nodes_line(nodes: &Nodes) -> String {
    let kinds = [(nodes.auth, "auth"), (nodes.proxy, "proxy"), (nodes.agent, "agent")];
    let kinds: Vec<String> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    format!("{} ({})", counted(nodes.total, "node"), kinds.join(", "))
}

fn databases_text(databases: &Databases<'_>) -> String {
    let (healthy, unhealthy, unknown) = (databases.healthy, databases.unhealthy, databases.unknown);
    let all = counted(databases.total, "database");
    let mut out = format!("{all}: {healthy} healthy, {unhealthy} unhealthy, {unknown} unknown\n");
    for unwell in &databases.not_healthy {
        let detail = if unwell.detail.is_empty() {
            "the agent does not say why"
        } else {
            unwell.detail
        };
        let since = unwell.since.map_or_else(String::new, |since| format!(" since {since}"));
        let (name, agent) = (one_line(unwell.database), one_line(unwell.agent));
        let _ = writeln!(
            out,
            "  {name} at {agent} is unhealthy{}: {}",
            one_line(&since),
            one_line(detail)
        );
    }
    out
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
