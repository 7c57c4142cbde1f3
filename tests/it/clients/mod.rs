//! Any client of PostgreSQL works through Postern as it does directly: each line of the tables in `docs/clients.md` is a test here,
//! with nodes apart. `POSTERN_BLESS=1` writes the tables, and the versions that are tested, into the page.

mod dumps;
mod jdbc;
mod large;
mod libpq;
mod maintenance;
mod newer;
mod pgbench;
mod psql;
mod psycopg;
pub use psycopg::python;
mod replication;
mod tokio_postgres;

pub use psycopg::function_as;

use crate::harness::postgres::program;
use crate::harness::{Client, Form, PATIENCE, cluster, run, shared};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A line of a table: what was tried, and how it went through Postern.
struct Row {
    what: &'static str,
    result: &'static str,
}

/// A table of the page.
struct Table {
    name: &'static str,
    /// The versions that were tested, for the line above the table.
    version: fn() -> String,
    rows: &'static [Row],
}

const TABLES: &[Table] = &[
    Table {
        name: "psql",
        version: || version_of("psql"),
        rows: psql::ROWS,
    },
    Table {
        name: "pgbench",
        version: || version_of("pgbench"),
        rows: pgbench::ROWS,
    },
    Table {
        name: "dumps",
        version: || version_of("pg_dump"),
        rows: dumps::ROWS,
    },
    Table {
        name: "maintenance",
        version: || version_of("vacuumdb"),
        rows: maintenance::ROWS,
    },
    Table {
        name: "replication",
        version: || version_of("pg_basebackup"),
        rows: replication::ROWS,
    },
    Table {
        name: "psycopg",
        version: psycopg::version,
        rows: psycopg::ROWS,
    },
    Table {
        name: "libpq",
        version: psycopg::version,
        rows: libpq::ROWS,
    },
    Table {
        name: "newer",
        version: newer::version,
        rows: newer::ROWS,
    },
    Table {
        name: "tokio-postgres",
        version: tokio_postgres::version,
        rows: tokio_postgres::ROWS,
    },
    Table {
        name: "jdbc",
        version: jdbc::version,
        rows: jdbc::ROWS,
    },
    Table {
        name: "large",
        version: psycopg::version,
        rows: large::ROWS,
    },
];

/// Makes a test of each line, and a table of all: `a_name: "what is tried" => "works"`.
macro_rules! rows {
    ($($test:ident: $what:literal => $result:literal),* $(,)?) => {
        pub const ROWS: &[super::Row] = &[$(super::Row { what: $what, result: $result }),*];
        mod tried {
            $(#[test] fn $test() { super::$test(&crate::harness::shared(crate::harness::Form::Apart)); })*
        }
    };
}
use rows;

/// A person of these tests' own, whose thousands of statements push nobody else's out of what the audit log answers at once.
static CLARA: LazyLock<Client> = LazyLock::new(|| {
    let cluster = shared(Form::Apart);
    cluster.create(&cluster::user("clara", "tester", "app, loader")).ok();
    // While a program that visits every database is in the template, no other test could make one of it.
    cluster
        .postgres
        .admin("postgres", "alter database template1 allow_connections false");
    cluster.client("clara", "app", "app")
});

/// Connects as the database user `app`, who owns a new database of this name.
fn in_new_database(cluster: &crate::harness::Cluster, name: &str) -> Client {
    cluster
        .postgres
        .admin("postgres", &format!("create database {name} owner app"));
    CLARA.in_database(name)
}

/// A file of these tests, beside this one.
pub fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/clients")
        .join(name)
}

/// What a program of PostgreSQL says of itself.
fn version_of(name: &str) -> String {
    let mut command = program(name, Path::new("/"));
    command.arg("--version");
    let said = run(command, PATIENCE).ok();
    // The rest is the distribution's.
    said.split(" (Debian").next().unwrap_or_default().trim().to_owned()
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md")
}

fn rendered(table: &Table) -> String {
    let mut text = "| what | through Postern |\n|---|---|\n".to_owned();
    for row in table.rows {
        writeln!(text, "| {} | {} |", row.what, row.result).expect("a string");
    }
    text
}

/// A table's place in the page: its beginning and end.
fn place(text: &str, name: &str) -> (usize, usize) {
    let opening = format!("<!-- tested: {name} -->\n");
    let from = text
        .find(&opening)
        .unwrap_or_else(|| panic!("the page has no {opening}"))
        + opening.len();
    let length = text[from..]
        .find("<!-- /tested -->")
        .expect("the table's end is marked");
    (from, from + length)
}

#[test]
fn the_page_of_clients_has_the_tables_that_these_tests_prove() {
    let mut text = std::fs::read_to_string(page()).expect("docs/clients.md");
    let bless = std::env::var_os("POSTERN_BLESS").is_some();
    for table in TABLES {
        let (from, to) = place(&text, table.name);
        if bless {
            let block = format!("Tested with {}.\n\n{}", (table.version)(), rendered(table));
            text.replace_range(from..to, &block);
        } else {
            // Versions are those of the machine where the page was written.
            let lines = text[from..to].split_once("\n\n").map_or("", |(_, table)| table);
            assert_eq!(
                lines,
                rendered(table),
                "docs/clients.md, {}: POSTERN_BLESS=1 writes it",
                table.name
            );
        }
    }
    if bless {
        std::fs::write(page(), &text).expect("docs/clients.md");
    }
    let marked = text.matches("<!-- tested: ").count();
    assert_eq!(marked, TABLES.len(), "the page has a table that no test proves");
}
