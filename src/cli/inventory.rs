//! `postern ctl nodes ls` and `postern ctl db ls`: what is in the cluster.

use super::admin_client::AdminClient;
use super::ctl::{Format, print_as, table};
use super::terminal::one_line;
use super::{Failure, Outcome};
use crate::model::Labels;
use crate::web::api::{DatabaseStatus, NodeStatus, Status};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// List the nodes that are alive.
    #[command(after_help = "Example:\n  postern ctl nodes ls")]
    Ls {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub enum DbVerb {
    /// List databases, a row for each agent that serves one.
    #[command(
        after_help = "Examples:\n  postern ctl db ls\n  postern ctl db ls env=prod,team=orders --search=billing -v"
    )]
    Ls(DbLsArgs),
}

#[derive(Debug, Args)]
pub struct DbLsArgs {
    /// Only those with all of these labels: key=value, with commas between them.
    #[arg(value_name = "LABELS", default_value = "")]
    labels: String,
    /// Only those with each of these words in name, description, labels or address; commas between them.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    search: Vec<String>,
    /// Also the agent's id, what was seen last and since when, and when the server's certificate ends.
    #[arg(short, long)]
    verbose: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub async fn nodes(client: &AdminClient, NodeVerb::Ls { format }: NodeVerb) -> Outcome {
    let status: Status = client.get("/v1/status", &Value::Null).await?;
    if format != Format::Text {
        let rows: Vec<Value> = status.nodes.iter().map(node_json).collect();
        return print_as(&rows, format);
    }
    let mut table = table(&["Name", "ID", "Services", "Version", "Address", "Databases"]);
    for node in &status.nodes {
        let databases: Vec<&str> = node.databases.iter().map(|database| database.name.as_str()).collect();
        table.add_row([
            one_line(&node.name),
            one_line(&node.id),
            one_line(&node.kinds.join(",")),
            one_line(&node.version),
            one_line(&node.addresses.join(", ")),
            one_line(&databases.join(", ")),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn node_json(node: &NodeStatus) -> Value {
    let databases: Vec<&str> = node.databases.iter().map(|database| database.name.as_str()).collect();
    json!({
        "name": node.name, "id": node.id, "services": node.kinds, "version": node.version, "addresses": node.addresses,
        "databases": databases,
    })
}

pub async fn databases(client: &AdminClient, DbVerb::Ls(args): DbVerb) -> Outcome {
    let labels = Labels::parse(&args.labels).map_err(Failure::usage)?;
    let status: Status = client.get("/v1/status", &Value::Null).await?;
    let rows: Vec<Row<'_>> = status
        .nodes
        .iter()
        .flat_map(|node| node.databases.iter().map(move |database| Row { node, database }))
        .filter(|row| row.has(&labels) && args.search.iter().all(|word| row.mentions(word)))
        .collect();
    if args.format != Format::Text {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        return print_as(&rows, args.format);
    }
    let mut header = vec!["Name", "Health", "Description", "Labels", "URI", "Agent"];
    if args.verbose {
        header.extend(["Agent ID", "Since", "Certificate until", "Detail"]);
    }
    let mut table = table(&header);
    for row in &rows {
        table.add_row(row.cells(args.verbose));
    }
    println!("{table}");
    if rows.is_empty() {
        println!("No databases found.");
    }
    Ok(())
}

/// A database as one agent serves it.
struct Row<'a> {
    node: &'a NodeStatus,
    database: &'a DatabaseStatus,
}

impl Row<'_> {
    fn has(&self, labels: &Labels) -> bool {
        labels
            .0
            .iter()
            .all(|(key, value)| self.database.labels.get(key) == Some(value))
    }

    fn mentions(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let database = self.database;
        let in_labels = database.labels.iter().flat_map(|(key, value)| [key, value]);
        [&database.name, &database.description, &database.uri]
            .into_iter()
            .chain(in_labels)
            .any(|text| text.to_lowercase().contains(&word))
    }

    fn cells(&self, verbose: bool) -> Vec<String> {
        let database = self.database;
        let health = &database.health;
        let labels = Labels(database.labels.clone()).to_string();
        let mut cells = vec![
            database.name.as_str(),
            health.state.label(),
            &database.description,
            &labels,
            &database.uri,
            &self.node.name,
        ];
        if verbose {
            cells.push(&self.node.id);
            cells.push(health.since.as_deref().unwrap_or_default());
            cells.push(health.certificate_until.as_deref().unwrap_or_default());
            cells.push(&health.detail);
        }
        cells.into_iter().map(one_line).collect()
    }

    fn json(&self) -> Value {
        let database = self.database;
        json!({
            "name": database.name, "description": database.description, "labels": database.labels, "uri": database.uri,
            "agent": self.node.name, "agent_id": self.node.id, "health": database.health,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::api::HealthStatus;

    #[test]
    fn rows_are_chosen_by_all_labels_and_by_words_in_whatever_case() {
        let database = DatabaseStatus {
            name: "orders".to_owned(),
            description: "Orders of the shop".to_owned(),
            labels: Labels::parse("env=prod,team=shop").unwrap().0,
            uri: "db.internal:5432".to_owned(),
            health: HealthStatus::default(),
        };
        let node = NodeStatus {
            id: "i".to_owned(),
            name: "agent\u{7}".to_owned(),
            kinds: vec!["db".to_owned()],
            version: String::new(),
            addresses: Vec::new(),
            databases: Vec::new(),
        };
        let row = Row {
            node: &node,
            database: &database,
        };
        let labels = |text: &str| Labels::parse(text).unwrap();
        assert!(row.has(&labels("")) && row.has(&labels("env=prod")) && row.has(&labels("env=prod,team=shop")));
        assert!(!row.has(&labels("env=dev")) && !row.has(&labels("env=prod,zone=a")));
        assert!(row.mentions("SHOP") && row.mentions("internal") && row.mentions("prod") && !row.mentions("billing"));
        assert_eq!(row.cells(false).last().unwrap(), "agent\\u{7}");
        assert_eq!((row.cells(false).len(), row.cells(true).len()), (6, 10));
    }
}
