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
    if let Some(results) = event["results"].as_array() {
        return Some(outcome(event, results));
    }
    let number = |name: &str| event[name].as_u64();
    let numbered = |text: String| match number("request") {
        Some(request) => format!("#{request} {text}"),
        None => text,
    };
    let named = ["db_query", "query", "reason", "error", "message"];
    named
        .iter()
        .find_map(|name| text(name))
        .map(numbered)
        .or_else(|| match event["code"].as_str() {
            Some("TPG01I" | "TPG02I" | "TPG03I") => Some(numbered(names(&text))),
            Some("TDB01I") => Some(format!(
                "{} bytes sent, {} received",
                event["bytes_from_client"], event["bytes_to_client"]
            )),
            _ => text("name").or_else(|| text("cert_type")).or_else(|| text("services")),
        })
}

/// The statement and the portal of a message; the unnamed ones have empty names.
fn names(text: &impl Fn(&str) -> Option<String>) -> String {
    let named = |kind: &str, name: &str| text(name).map(|name| format!("{kind} {name:?}"));
    let both = [named("statement", "statement_name"), named("portal", "portal_name")];
    both.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How many results of one event are shown; its JSON has them all.
const RESULTS_SHOWN: usize = 4;

/// `#7 SELECT, 3 rows; #9 (text of #8) failed at parse: 42601`.
fn outcome(event: &Value, results: &[Value]) -> String {
    let mut shown: Vec<String> = results.iter().take(RESULTS_SHOWN).map(result).collect();
    if let Some(more @ 1..) = results.len().checked_sub(RESULTS_SHOWN) {
        let rows = counted(event["affected_records"].as_u64().unwrap_or_default(), "row");
        shown.push(format!("{more} more, {rows} in all"));
        if let Some(error) = event["error"].as_str().map(one_line) {
            shown.push(format!("first error {error}"));
        }
    }
    if let Some(skipped) = event["skipped"].as_u64() {
        shown.push(format!("{} skipped", counted(skipped, "request")));
    }
    if event["in_doubt"].as_bool() == Some(true) {
        shown.push("which is whose is in doubt".to_owned());
    }
    shown.join("; ")
}

fn result(result: &Value) -> String {
    let text = |name: &str| result[name].as_str().map(one_line);
    let number = |name: &str| result[name].as_u64();
    let mut said = number("request").map_or_else(String::new, |request| format!("#{request} "));
    if let Some(parsed) = number("parsed") {
        said += &format!("(text of #{parsed}) ");
    }
    said += &match (text("failed_at"), text("command")) {
        (Some(step), _) => format!(
            "failed at {step}: {}",
            text("sqlstate").unwrap_or_else(|| "no SQLSTATE".to_owned())
        ),
        (None, Some(command)) if command.is_empty() => "done".to_owned(),
        (None, Some(command)) => command,
        (None, None) => "suspended".to_owned(),
    };
    if let Some(rows) = number("rows") {
        said += &format!(", {}", counted(rows, "row"));
    }
    for (way, name) in [("in", "bytes_in"), ("out", "bytes_out")] {
        if let Some(bytes) = number(name) {
            said += &format!(", {bytes} bytes {way}");
        }
    }
    said
}

fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn detail_of(event: Value) -> String {
        detail(&event).expect("something to say")
    }

    #[test]
    fn a_result_reads_as_what_became_of_each_request() {
        let event = json!({"code": "TDB10I", "success": true, "affected_records": 3, "results": [
            {"request": 7, "command": "SELECT", "rows": 1},
            {"request": 9, "parsed": 8, "command": "COPY", "rows": 2, "copy": "in", "bytes_in": 14},
            {"request": 10, "command": "BEGIN"},
        ]});
        assert_eq!(
            detail_of(event),
            "#7 SELECT, 1 row; #9 (text of #8) COPY, 2 rows, 14 bytes in; #10 BEGIN"
        );
        let event = json!({"code": "TDB10I", "success": false, "error": "42601", "skipped": 2, "results": [
            {"request": 1, "failed_at": "parse", "severity": "ERROR", "sqlstate": "42601"},
        ]});
        assert_eq!(detail_of(event), "#1 failed at parse: 42601; 2 requests skipped");
    }

    #[test]
    fn of_a_long_batch_the_first_results_and_the_sum_are_shown() {
        let results: Vec<Value> = (1..=100)
            .map(|n| json!({"request": n, "command": "INSERT", "rows": 1}))
            .collect();
        let event = json!({"code": "TDB10I", "success": true, "affected_records": 100, "results": results});
        let shown = detail_of(event);
        assert!(shown.ends_with("#4 INSERT, 1 row; 96 more, 100 rows in all"), "{shown}");
    }

    #[test]
    fn a_statement_is_shown_with_its_number_and_an_execute_with_its_names() {
        let event = json!({"code": "TDB02I", "request": 7, "db_query": "select 1"});
        assert_eq!(detail_of(event), "#7 select 1");
        let event = json!({"code": "TPG01I", "request": 8, "statement_name": "s", "portal_name": ""});
        assert_eq!(detail_of(event), "#8 statement \"s\", portal \"\"");
        let event = json!({"code": "TC000I", "cert_type": "user"});
        assert_eq!(detail_of(event), "user");
    }
}
