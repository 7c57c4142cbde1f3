//! Mistakes that the guide invites to, and what somebody reads who follows it to the letter: the name that was typed, what exists
//! for them, and the next step.

use crate::harness::person::{PASSWORD, Person};
use crate::harness::sign_up::code_at;
use crate::harness::wait::until_ok;
use crate::harness::{Client, Form, PATIENCE, TestDir, Wire, postern, run, shared};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

#[track_caller]
fn holds(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn whoever_logs_in_under_a_name_that_does_not_exist_reads_what_a_wrong_password_gets_and_the_name() {
    let cluster = shared(Form::OneProcess);
    let carla = Person::sign_up(&cluster, "carla");
    let said = |user: &str, password: &str| {
        let line = format!("tsh login --proxy={} --user={user} --ca-pin={}", carla.proxy, carla.pin);
        let answers = format!("{password}\n{}\n", code_at(&carla.secret, 0));
        carla.typed_with(&line, &answers).failed_with(1)
    };
    let unknown = said("testuser", PASSWORD);
    holds(
        &unknown,
        &[
            "tsh: invalid username, password or second factor; ",
            "logging in as \"testuser\"",
            "--user",
            "`ctl users ls`",
        ],
    );
    let wrong = said("carla", "not the password of anybody");
    assert_eq!(unknown.replace("testuser", "carla"), wrong, "who exists is not told");
    holds(&cluster.ctl(&["users", "ls"]).ok(), &["carla"]);
    let event = cluster.audited("testuser", "T1000W", |_| true);
    assert_eq!(
        event["success"], false,
        "the log says that nobody is called so: {event}"
    );
}

#[test]
fn whoever_asks_for_a_database_of_another_name_reads_those_that_are_there() {
    let cluster = shared(Form::OneProcess);
    let dora = Person::sign_up(&cluster, "dora");
    dora.log_in("tsh", 0).ok();
    let mut texts = Vec::new();
    for verb in ["login", "connect --db-name=app"] {
        let said = dora.typed(&format!("tsh db {verb} example")).failed_with(1);
        holds(
            &said,
            &[
                "tsh: database \"example\" not found, use 'tsh db ls' to see registered databases; you may use ",
                "orders",
            ],
        );
        texts.push(said);
    }
    assert_eq!(texts[0], texts[1]);
    let forget = |line: &str| dora.typed(line);
    assert_eq!(forget("tsh db logout").ok(), "Not logged into any databases\n");
    assert_eq!(
        forget("tsh db logout example").failed_with(1),
        "tsh: Not logged into database \"example\"\n"
    );
    // With a certificate that names it, the proxy says the same to psql.
    let client: Client = cluster.client_for("example", "alice", "app", "app");
    let error = Wire::connect(&client).err().expect("it is not there");
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "3D000"));
    assert_eq!(
        error.message,
        "database \"example\" not found among registered databases in cluster \"test.example\""
    );
    holds(&error.hint, &["postern db ls", "postern ctl db ls"]);
}

#[test]
fn a_start_from_another_path_than_was_written_names_the_path_and_how_to_make_the_file() {
    let directory = TestDir::new();
    let mut command = postern(directory.path());
    command.args(["start", "--config=/path/to/teleport-db.yaml", "--token=/tmp/token"]);
    holds(
        &run(command, PATIENCE).failed_with(2),
        &[
            "postern: cannot read the configuration file /path/to/teleport-db.yaml: there is no such file; ",
            "name ",
            "`postern db configure create`",
        ],
    );
}

#[test]
fn an_expired_token_is_told_with_its_end_and_the_command_for_a_new_one() {
    let (cluster, directory) = (shared(Form::Apart), TestDir::new());
    let token = cluster
        .ctl(&["tokens", "add", "--type=db", "--ttl=1s", "--format=text"])
        .ok();
    until_ok("the token is over", PATIENCE, || {
        let listed = cluster.ctl(&["tokens", "ls"]).ok();
        if listed.contains(&token[..4]) {
            Err(listed)
        } else {
            Ok(())
        }
    });
    let mut command = postern(directory.path());
    command.args(["db", "start", "--name=late", "--protocol=postgres", "--uri=localhost:1"]);
    command
        .arg(format!("--token={}", directory.write("token", &token).display()))
        .arg(format!("--ca-pin={}", cluster.ca_pin()))
        .arg(format!("--auth-server=localhost:{}", cluster.proxy_port()))
        .arg(format!("--data-dir={}", directory.join("data").display()));
    let said = run(command, PATIENCE).failed_with(1);
    holds(&said, &[&token[..4], "expired at 20", "ctl tokens add --type=db"]);
    assert!(!said.contains(token.trim()), "a token is not shown whole: {said}");
}

/// The exit code of a line of a shell's, and what was said on standard error.
fn shell(directory: &TestDir, line: &str) -> (String, String) {
    if !directory.join("postern").is_symlink() {
        symlink(env!("CARGO_BIN_EXE_postern"), directory.join("postern")).expect("a link");
    }
    let output = Command::new("bash")
        .args(["-c", line])
        .current_dir(directory.path())
        .env("HOME", directory.path())
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn a_command_that_nobody_reads_any_more_ends_quietly_and_one_that_cannot_write_says_so() {
    let directory = TestDir::new();
    // The reader has gone before the program starts.
    let gone =
        "{ until [ -e gone ]; do :; done; ./postern version; echo $? > code; } | { exec <&-; touch gone; }; cat code";
    assert_eq!(shell(&directory, gone), ("141\n".to_owned(), String::new()));
    let both = "rm -f gone; { until [ -e gone ]; do :; done; ./postern logout --user=x --proxy=a: 2>&1; echo $? > code; } | { exec <&-; touch \
                gone; }; cat code";
    assert_eq!(
        shell(&directory, both),
        ("2\n".to_owned(), String::new()),
        "its own failure"
    );
    let (code, said) = shell(&directory, "./postern version > /dev/full; echo $?");
    assert_eq!(code, "1\n");
    assert!(
        said.starts_with("postern: standard output cannot be written: ") && said.ends_with("is not complete\n"),
        "{said}"
    );
}
