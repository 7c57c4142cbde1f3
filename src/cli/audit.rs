//! `postern ctl audit ls`: who ran what.

use super::admin_client::AdminClient;
use super::ctl::Format;
use super::terminal::{one_line, parse_duration};
use super::{Failure, Outcome};
use crate::model::{Clock as _, SystemClock, Timestamp};
use crate::web::api::{AuditEvents, AuditQuery};
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only events of this person.
    #[arg(long)]
    user: Option<String>,
    /// Only events of this database service.
    #[arg(long)]
    db: Option<String>,
    /// Only events of this name, for example db.session.query.
    #[arg(long)]
    event: Option<String>,
    /// Only events since then: a duration (10m, 2h) or a time (2026-01-31T12:00:00Z).
    #[arg(long)]
    since: Option<String>,
    /// At most so many, the newest.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub async fn list(client: &AdminClient, args: AuditArgs) -> Outcome {
    let since = args.since.as_deref().map(since).transpose()?;
    let query = AuditQuery {
        user: args.user,
        db: args.db,
        event: args.event,
        since: since.map(|since| since.to_string()),
        limit: Some(args.limit),
    };
    let found: AuditEvents = client.get("/v1/audit", &query).await?;
    for event in &found.events {
        match args.format {
            Format::Json => println!("{event}"),
            Format::Yaml => println!("---\n{}", as_yaml(event)?),
            Format::Text => println!("{}", line(event)?),
        }
    }
    if found.events.is_empty() && args.format == Format::Text {
        println!("No events.");
    }
    Ok(())
}

fn since(text: &str) -> Result<Timestamp, Failure> {
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        return Ok(time);
    }
    match parse_duration(text) {
        Ok(ago) => Ok(SystemClock.now() - ago),
        Err(_) => Err(Failure::usage(format!(
            "--since {text:?} is neither a duration nor a time; write for example 10m or 2026-01-31T12:00:00Z"
        ))),
    }
}

fn as_yaml(event: &str) -> Result<String, Failure> {
    let value: Value = serde_json::from_str(event).map_err(Failure::internal)?;
    serde_saphyr::to_string(&value).map_err(Failure::internal)
}

/// One event as a person reads it: when, what, who, where, and what it comes to.
fn line(event: &str) -> Result<String, Failure> {
    let event: Value = serde_json::from_str(event).map_err(Failure::internal)?;
    let text = |name: &str| event[name].as_str().map(one_line);
    let mut parts = vec![
        text("time").unwrap_or_default(),
        text("code").unwrap_or_default(),
        text("event").unwrap_or_default(),
    ];
    if let Some(user) = text("user") {
        parts.push(format!("user={user}"));
    }
    if let Some(service) = text("db_service") {
        let (db_user, db_name) = (text("db_user").unwrap_or_default(), text("db_name").unwrap_or_default());
        parts.push(format!("db={service} as {db_user} on {db_name}"));
    }
    parts.extend(detail(&event));
    Ok(parts.join("  "))
}

fn detail(event: &Value) -> Option<String> {
    let text = |name: &str| event[name].as_str().map(one_line);
    if let Some(by) = text("decided_by") {
        let role = text("decision_role").map_or_else(String::new, |role| format!(", role {role}"));
        let said = match event["success"].as_bool() {
            Some(true) => format!("allowed by the {by}{role}, policy {}", event["policy_version"]),
            _ => {
                let why = text("message").or_else(|| text("error")).unwrap_or_default();
                format!("refused at the {by}{role}: {why}")
            }
        };
        return Some(said);
    }
    let named = ["db_query", "query", "reason", "error", "message"];
    named
        .iter()
        .find_map(|name| text(name))
        .or_else(|| match event["code"].as_str() {
            Some("TDB01I") => Some(format!(
                "{} bytes sent, {} received",
                event["bytes_from_client"], event["bytes_to_client"]
            )),
            _ => text("name").or_else(|| text("cert_type")).or_else(|| text("services")),
        })
}
