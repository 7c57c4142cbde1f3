//! `db ls`: the databases that a person may use.

use super::ListArgs;
use super::choice::{self, Opened};
use super::session::{Session, now};
use crate::cli::ctl::{Format, print_as, table};
use crate::cli::names::Program;
use crate::cli::profile::ActiveDatabase;
use crate::cli::terminal::one_line;
use crate::cli::{Failure, Outcome};
use crate::model::Labels;
use crate::web::people_api::MyDatabase;
use comfy_table::Table;

pub async fn list(program: Program, args: &ListArgs) -> Outcome {
    let wanted = args
        .labels
        .as_deref()
        .map(Labels::parse)
        .transpose()
        .map_err(Failure::usage)?;
    let session = Session::open(program, &args.at)?;
    let mut databases = session.client()?.databases().await?.databases;
    databases.retain(|database| is_meant(database, wanted.as_ref(), &args.search));
    if args.format != Format::Text {
        return print_as(&databases, args.format);
    }
    let mut active = session.home.databases(&session.profile).map_err(Failure::failed)?;
    active.retain(|active| active.valid_until > now());
    println!("{}", rows(program, &databases, &active, args.verbose));
    if databases.is_empty() {
        let all = wanted.is_none() && args.search.is_empty();
        println!("{}", if all { choice::NONE } else { "No databases found." });
    }
    Ok(())
}

fn is_meant(database: &MyDatabase, labels: Option<&Labels>, words: &[String]) -> bool {
    let has = |(key, value): (&String, &String)| database.labels.get(key) == Some(value);
    let text = format!(
        "{} {} {}",
        database.name,
        database.description,
        Labels(database.labels.clone())
    );
    let text = text.to_lowercase();
    labels.is_none_or(|labels| labels.0.iter().all(has)) && words.iter().all(|word| text.contains(&word.to_lowercase()))
}

fn rows(program: Program, databases: &[MyDatabase], active: &[ActiveDatabase], verbose: bool) -> Table {
    let mut header = vec!["Name", "Description"];
    if verbose {
        header.extend(["Protocol", "URI"]);
    }
    header.extend(["Allowed Users", "Labels", "Connect"]);
    if verbose {
        header.push("Expires");
    }
    let mut table = table(&header);
    for database in databases {
        let logged_in = active.iter().find(|active| active.service == database.name);
        let mut row = vec![name(database, logged_in), database.description.clone()];
        if verbose {
            row.extend([database.protocol.clone(), database.uri.clone()]);
        }
        row.push(Opened::AsUser.shown(database));
        row.push(Labels(database.labels.clone()).to_string());
        row.push(logged_in.map_or_else(String::new, |active| format!("{program} db connect {}", active.service)));
        if verbose {
            row.push(logged_in.map_or_else(String::new, |active| active.valid_until.to_string()));
        }
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    table
}

/// `> name (user: x, db: y)` for one that is logged in to.
fn name(database: &MyDatabase, active: Option<&ActiveDatabase>) -> String {
    let Some(active) = active else {
        return database.name.clone();
    };
    let user = active.db_user.as_ref().map(|user| format!("user: {user}"));
    let name = active.db_name.as_ref().map(|name| format!("db: {name}"));
    let known: Vec<String> = user.into_iter().chain(name).collect();
    if known.is_empty() {
        format!("> {}", database.name)
    } else {
        format!("> {} ({})", database.name, known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::example;
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn the_table_has_the_columns_that_people_know_and_marks_what_is_active() {
        let databases = [
            example("orders", &["*"], &["postgres"], &["*"]),
            example("st\u{1b}ock", &["reader"], &[], &[]),
        ];
        let active = [ActiveDatabase {
            service: "orders".to_owned(),
            db_user: Some("reader".to_owned()),
            db_name: Some("app".to_owned()),
            valid_until: Timestamp::from_secs(1_800_000_000),
        }];
        let text = rows(Program::Tsh, &databases, &active, false).to_string();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
                    .collect()
            })
            .collect();
        assert_eq!(lines[0], ["Name", "Description", "Allowed Users", "Labels", "Connect"]);
        assert_eq!(
            lines[1],
            [
                "> orders (user: reader, db: app)",
                "Example",
                "[*] except [postgres]",
                "env=dev",
                "tsh db connect orders"
            ]
        );
        assert_eq!(lines[2], ["st\\u{1b}ock", "Example", "[reader]", "env=dev"]);
        let wide = rows(Program::Tsh, &databases, &active, true).to_string();
        assert!(
            wide.contains("Expires") && wide.contains("db:5432") && wide.contains("2027-01-15"),
            "{wide}"
        );
    }

    #[test]
    fn labels_and_words_select_together() {
        let database = example("orders", &[], &[], &[]);
        let meant = |labels: &str, words: &[&str]| {
            let labels = Labels::parse(labels).unwrap();
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            is_meant(&database, Some(&labels), &words)
        };
        assert!(meant("env=dev", &["ORD", "example"]) && meant("", &["env=dev"]));
        assert!(!meant("env=prod", &[]) && !meant("env=dev", &["stock"]));
    }
}
