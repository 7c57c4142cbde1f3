//! psql, with what people type into it.

use super::{CLARA, in_new_database, rows};
use crate::harness::{Client, Cluster, FIVE_SECONDS, PATIENCE, Session, TestDir, run, until};
use std::process::Command;

rows! {
    copy_to_and_from_a_file: "`\\copy` to a file and from one" => "works",
    watch_repeats_a_query: "`\\watch`, ended with Ctrl-C" => "works",
    c_changes_database_and_role: "`\\c` to another database and another database user" => "works: each is a connection of its own, decided by the roles",
    ctrl_c_in_a_query: "Ctrl-C in a query" => "works: 57014, and the session goes on",
    ctrl_c_while_copying_out: "Ctrl-C in a COPY to the client" => "works: 57014, and the session goes on",
    ctrl_c_while_copying_in: "Ctrl-C in a COPY from the client" => "works: 57014, and the session goes on",
    fetch_count_reads_in_portions: "`\\set FETCH_COUNT`" => "works",
    gexec_runs_what_a_query_says: "`\\gexec`, `\\gset`, variables" => "works",
    large_objects_go_both_ways: "`\\lo_import`, `\\lo_export`, `\\lo_unlink`" => "works",
    notifications_reach_another_psql: "LISTEN and NOTIFY between two psqls" => "works",
    notices_keep_their_place: "notices between results" => "works: where they come directly",
    described_as_directly: "`\\d`, `\\l`, `\\du`, `\\dconfig`, `\\conninfo`" => "works; `\\conninfo` names the proxy",
    a_password_is_changed: "`\\password`" => "works; nobody needs the password through Postern",
}

/// Runs a script as psql reads a file, and gives what it printed.
#[track_caller]
fn script(client: &Client, text: &str) -> String {
    let directory = TestDir::new();
    let mut psql = client.psql_command();
    psql.arg("-f").arg(directory.write("script.sql", text));
    run(psql, PATIENCE).ok()
}

/// What psql says of a script to a terminal, where results and notices come one after the other: through Postern, and past it.
#[track_caller]
fn both_ways(cluster: &Cluster, text: &str) -> (String, String) {
    let directory = TestDir::new();
    let file = directory.write("script.sql", text);
    let through = CLARA.psql_command();
    let mut directly = cluster.postgres.admin_tool("psql");
    directly
        .env("PGUSER", "app")
        .env("PGDATABASE", "app")
        .args(through.get_args());
    let merged = |psql: Command| {
        let mut sh = Command::new("sh");
        sh.args(["-c", "exec \"$0\" \"$@\" 2>&1"])
            .arg(psql.get_program())
            .args(psql.get_args())
            .arg("-f")
            .arg(&file);
        for (name, value) in psql.get_envs() {
            match value {
                Some(value) => sh.env(name, value),
                None => sh.env_remove(name),
            };
        }
        run(sh, PATIENCE).ok()
    };
    (merged(through), merged(directly))
}

fn copy_to_and_from_a_file(cluster: &Cluster) {
    let client = in_new_database(cluster, "psql_copy");
    let directory = TestDir::new();
    let file = directory.join("lines");
    let said = script(
        &client,
        &format!(
            "create table lines (n int, line text);\n\
             insert into lines select n, repeat('x', 100) || n from generate_series(1, 20000) n;\n\
             \\copy lines to '{file}'\n\
             create table again (like lines);\n\
             \\copy again from '{file}'\n\
             select count(*), (select count(*) from (select * from lines except select * from again) d) from again;\n",
            file = file.display()
        ),
    );
    assert_eq!(said, "20000|0\n");
}

fn watch_repeats_a_query(_: &Cluster) {
    let mut psql = Session::on_a_terminal(&CLARA);
    psql.say("create temporary sequence rounds;");
    psql.say("select 'round ' || nextval('rounds') as counted \\watch 0.1");
    psql.hears("round 4", PATIENCE);
    psql.press_ctrl_c();
    psql.ask("select 'still ' || 'here';", "still here");
}

fn c_changes_database_and_role(cluster: &Cluster) {
    let client = in_new_database(cluster, "psql_other");
    let said = script(
        &client.in_database("app"),
        "select current_database(), current_user;\n\\c psql_other\nselect current_database(), current_user;\n\
         \\c app loader\nselect current_database(), current_user;\n\\c - app\nselect current_database(), current_user;\n",
    );
    assert_eq!(said, "app|app\npsql_other|app\napp|loader\napp|app\n");
    let mut refused = client.psql_command();
    refused.args(["-c", "\\c app postgres"]);
    let said = run(refused, PATIENCE).stderr;
    assert!(
        said.contains("Previous connection kept") || said.contains("FATAL"),
        "{said}"
    );
}

/// Types `statement` on a terminal, waits until PostgreSQL runs it, presses Ctrl-C, and asks whether the session lives.
#[track_caller]
fn interrupted(cluster: &Cluster, before: &str, statement: &str, running: &str) {
    let mut psql = Session::on_a_terminal(&CLARA);
    psql.ask("select 'con' || 'nected';", "connected");
    psql.say(before);
    psql.say(statement);
    cluster.postgres.wait_until_runs("app", running);
    psql.press_ctrl_c();
    psql.hears("57014", FIVE_SECONDS);
    psql.ask("select 'still ' || 'here';", "still here");
}

fn ctrl_c_in_a_query(cluster: &Cluster) {
    interrupted(cluster, "", "select pg_sleep(60) /* clara waits */;", "clara waits");
}

fn ctrl_c_while_copying_out(cluster: &Cluster) {
    let statement =
        "\\copy (select repeat('x', 1000) /* clara reads */ from generate_series(1, 100000000)) to '/dev/null'";
    interrupted(cluster, "", statement, "clara reads");
}

fn ctrl_c_while_copying_in(cluster: &Cluster) {
    let before = "create temporary table clara_writes (line text);";
    interrupted(
        cluster,
        before,
        "\\copy clara_writes from program 'yes'",
        "clara_writes FROM STDIN",
    );
}

fn fetch_count_reads_in_portions(_: &Cluster) {
    let said = script(
        &CLARA,
        "\\set FETCH_COUNT 100\nselect n from generate_series(1, 2500) n;\nselect 'after';\n",
    );
    assert_eq!(said.lines().count(), 2501);
    assert!(said.ends_with("2500\nafter\n"), "{said}");
}

fn gexec_runs_what_a_query_says(cluster: &Cluster) {
    let client = in_new_database(cluster, "psql_gexec");
    let said = script(
        &client,
        "select format('create table t%s as select %s as n', n, n) from generate_series(1, 5) n \\gexec\n\
         select count(*) as tables from pg_tables where tablename ~ '^t[1-5]$' \\gset\n\
         select :tables + t5.n from t5;\n",
    );
    assert_eq!(said, "10\n");
}

fn large_objects_go_both_ways(cluster: &Cluster) {
    let client = in_new_database(cluster, "psql_lo");
    let directory = TestDir::new();
    let bytes: Vec<u8> = (0..1_500_000_u32).flat_map(u32::to_le_bytes).collect();
    let file = directory.write("object", &bytes);
    let back = directory.join("back");
    let said = script(
        &client,
        &format!(
            "\\lo_import '{}'\n\\lo_export :LASTOID '{}'\n\\lo_unlink :LASTOID\nselect count(*) from pg_largeobject_metadata;\n",
            file.display(),
            back.display()
        ),
    );
    assert!(said.ends_with("0\n"), "{said}");
    assert!(std::fs::read(back).expect("the file") == bytes, "the object is another");
    // libpq has them by FunctionCall, and not by SQL.
    cluster.audited("clara", "TPG04I", |event| event["db_name"] == "psql_lo");
}

fn notifications_reach_another_psql(_: &Cluster) {
    let mut listens = Session::open(&CLARA);
    listens.ask("listen news; select 'lis' || 'tens';", "listens");
    CLARA.psql("notify news, 'the lantern is lit'").ok();
    // psql looks for notifications after a statement.
    until("the notification is shown", PATIENCE, || {
        listens.say("select 1;");
        listens
            .said()
            .contains("with payload \"the lantern is lit\"")
            .then_some(())
    });
}

fn notices_keep_their_place(cluster: &Cluster) {
    let (through, directly) = both_ways(
        cluster,
        "create function pg_temp.says(t text) returns text language plpgsql as $$ begin raise notice 'notice %', t; return 'row ' || t; end $$;\n\
         select pg_temp.says('one') \\; do $$ begin raise notice 'notice two'; end $$ \\; select pg_temp.says('three');\n\
         select pg_temp.says('four');\nselect 'last';\n",
    );
    assert_eq!(through, directly);
    for part in ["notice one", "row one", "notice two", "row three", "row four", "last"] {
        assert!(through.contains(part), "no {part}: {through}");
    }
}

fn described_as_directly(cluster: &Cluster) {
    let (through, directly) = both_ways(cluster, "\\d orders\n\\l app\n\\du loader\n\\dconfig work_mem\n\\dn\n");
    assert_eq!(through, directly);
    assert!(through.contains("not null"), "{through}");
    let conninfo = script(&CLARA, "\\conninfo\n");
    assert!(conninfo.contains(&format!("port \"{}\"", CLARA.port)), "{conninfo}");
}

fn a_password_is_changed(cluster: &Cluster) {
    let client = in_new_database(cluster, "psql_password");
    let mut psql = Session::on_a_terminal(&client);
    psql.say("\\password");
    psql.hears("Enter new password", PATIENCE);
    psql.say("of no use");
    psql.hears("Enter it again", PATIENCE);
    psql.say("of no use");
    let stored = "select rolpassword ~ '^SCRAM-SHA-256' from pg_authid where rolname = 'app'";
    until("the password is stored", PATIENCE, || {
        (cluster.postgres.admin("postgres", stored).trim() == "t").then_some(())
    });
}
