//! People who use databases, by the commands that they type: from the first login to the last logout.

use crate::harness::configuration::DB_TOKEN;
use crate::harness::person::{PASSWORD, Person};
use crate::harness::sign_up::code_at;
use crate::harness::wait::until_ok;
use crate::harness::{Cluster, Form, PATIENCE, Process, TestDir, clean_environment, shared};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

#[track_caller]
fn holds(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// One more agent, with the database service `name`.
fn another_database(cluster: &Cluster, directory: &TestDir, name: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    clean_environment(&mut command, directory.path());
    let token = directory.write("token", DB_TOKEN);
    let data_dir = directory.join("data");
    command.args(["db", "start", "--protocol=postgres", "--labels=env=dev"]);
    command
        .arg(format!("--name={name}"))
        .arg(format!("--nodename=agent-{name}"));
    command.arg(format!("--token={}", token.display()));
    command.arg(format!("--ca-pin={}", cluster.ca_pin()));
    command.arg(format!("--auth-server=localhost:{}", cluster.proxy_port()));
    command.arg(format!("--uri=localhost:{}", cluster.postgres.port));
    command.arg(format!("--data-dir={}", data_dir.display()));
    let mut agent = Process::start(name, command, directory.join("agent.log"));
    until_ok("the agent is ready", PATIENCE, || {
        assert!(agent.exit_code().is_none(), "it ended:\n{}", agent.log_tail());
        if data_dir.join("listening.json").exists() {
            Ok(())
        } else {
            Err(agent.log_tail())
        }
    });
    agent
}

#[test]
fn somebody_logs_in_uses_two_databases_at_once_and_logs_out_of_one_and_of_all() {
    let cluster = shared(Form::Apart);
    let directory = TestDir::new();
    let _agent = another_database(&cluster, &directory, "by-tsh");
    let anna = Person::sign_up(&cluster, "anna");
    let theirs = "# mine\n[own]\nhost=elsewhere\n";
    std::fs::write(anna.home.join(".pg_service.conf"), theirs).expect("ours");

    let said = anna.log_in("tsh", 0).ok();
    holds(
        &said,
        &[
            &format!("> Profile URL:        https://{}\n", anna.proxy),
            "\n  Logged in as:       anna\n",
            "\n  Cluster:            test.example\n",
            "\n  Roles:              tester\n",
            "[valid for 1",
        ],
    );
    // What is left of it is a second less where one passes between the two.
    let but_for_what_is_left = |said: String| said.split(" [valid for ").next().map(str::to_owned);
    assert_eq!(
        but_for_what_is_left(anna.typed("postern login").ok()),
        but_for_what_is_left(anna.typed("postern status").ok()),
        "nothing is asked again"
    );
    let listed = anna.typed("tsh db ls env=dev").ok();
    holds(
        &listed,
        &[
            "Name",
            "Description",
            "Allowed Users",
            "Labels",
            "by-tsh",
            "[app]",
            "env=dev",
        ],
    );
    holds(
        &anna.typed("tsh db env").failed_with(1),
        &["please login using 'tsh db login' first (use 'tsh db ls' to see registered databases)"],
    );
    holds(
        &anna.typed("tsh db login").failed_with(1),
        &["multiple databases are available ("],
    );
    holds(
        &anna.typed("tsh db login nothing").failed_with(1),
        &["database \"nothing\" not found, use 'tsh db ls' to see registered databases"],
    );
    holds(
        &anna.typed("tsh db connect by-tsh").failed_with(1),
        &["please provide the database name using the --db-name flag, allowed database names for by-tsh: [*]"],
    );

    let said = anna.typed("tsh db login --db-name=app by-tsh").ok();
    holds(
        &said,
        &[
            "Connection information for database \"by-tsh\" has been saved.",
            "  tsh db connect by-tsh\n",
        ],
    );
    anna.typed("postern db login --db-user=app --db-name=postgres orders")
        .ok();
    assert_eq!(
        anna.psql("test.example-by-tsh", "select item from orders where id = 2")
            .ok(),
        "rope\n"
    );
    assert_eq!(
        anna.psql("test.example-orders", "select current_database()").ok(),
        "postgres\n"
    );
    holds(
        &anna.typed("tsh db ls").ok(),
        &["> by-tsh (user: app, db: app)", "> orders (user: app, db: postgres)"],
    );
    holds(
        &anna.typed("tsh status").ok(),
        &["Databases:          by-tsh, orders\n"],
    );

    let answered = anna
        .typed_with("tsh db connect by-tsh", "select current_user, current_database();\n")
        .ok();
    holds(&answered, &["app", "(1 row)"]);
    let answered = anna
        .typed_with("tsh db connect -n postgres by-tsh", "select current_database();\n")
        .ok();
    holds(&answered, &["postgres"]);
    let refused = anna
        .typed_with("tsh db connect -u other by-tsh", "select 1;\n")
        .failed_with(1);
    holds(
        &refused,
        &["please provide the database user using the --db-user flag, allowed database users for by-tsh: [app]"],
    );
    let services = anna.services();
    let failed = anna
        .typed_with("tsh db connect -n no-such-database by-tsh", "select 1;\n")
        .failed_with(2);
    holds(
        &failed,
        &["exit status 2: 'psql' exited with the above error. Use 'tsh db ls' to see"],
    );
    assert_eq!(anna.services(), services, "what failed has replaced nothing");
    let answered = anna
        .typed_with("tsh db connect by-tsh", "select current_user, current_database();\n")
        .ok();
    holds(&answered, &["app", "(1 row)"]);
    let tsh = anna.home.join("tsh");
    let other = anna.typed(&format!("/usr/bin/env TELEPORT_USER=other {} status", tsh.display()));
    holds(
        &other.stdout,
        &["> Profile URL:", "Logged in as:       other\n", "[LOGGED OUT]"],
    );
    let key = anna
        .home
        .join(format!(".postern/keys/{}/anna.key", anna.proxy.replace(':', "+")));
    assert_eq!(
        std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777,
        0o600
    );

    assert_eq!(
        anna.typed("tsh db logout orders").ok(),
        "Logged out of database orders\n"
    );
    holds(
        &anna.typed("tsh db logout orders").failed_with(1),
        &["Not logged into database \"orders\""],
    );
    assert!(!anna.services().contains("test.example-orders") && anna.services().contains("[test.example-by-tsh]"));
    anna.typed("tsh logout").ok();
    assert_eq!(anna.services(), theirs, "what is not ours is as it was");
    assert!(!key.exists());
    holds(
        &anna.typed("tsh status").failed_with(1),
        &["not logged in; type `tsh login --proxy="],
    );
    holds(&anna.typed("tsh db ls").failed_with(1), &["not logged in"]);
}

#[test]
fn a_wrong_password_and_a_proxy_that_nothing_vouches_for_are_refused_and_leave_nothing() {
    let cluster = shared(Form::OneProcess);
    let bert = Person::sign_up(&cluster, "bert");
    let line = format!("tsh login --proxy={} --user=bert", bert.proxy);
    let answers = format!("{PASSWORD}\n{}\n", code_at(&bert.secret, 0));
    holds(
        &bert.typed_with(&line, &answers).failed_with(1),
        &["--ca-pin", "--insecure"],
    );
    let line = format!("{line} --ca-pin={}", bert.pin);
    let wrong = format!("{PASSWORD}!\n{}\n", code_at(&bert.secret, 0));
    let first = bert.typed_with(&line, &wrong).failed_with(1);
    let code = bert.typed_with(&line, &format!("{PASSWORD}\n12\n")).failed_with(1);
    assert_eq!(first, code, "one text for every wrong answer");
    holds(&bert.typed(&line).failed_with(2), &["the password", "standard input"]);
    bert.typed("tsh status").failed_with(1);

    let insecure = format!("postern login --proxy={} --user=bert --insecure --ttl=5s", bert.proxy);
    let answers = format!("{PASSWORD}\n{}\n", code_at(&bert.secret, 0));
    holds(
        &bert.typed_with(&insecure, &answers).ok(),
        &["Logged in as:       bert"],
    );
    bert.typed("postern db login --db-name=app orders").ok();
    let expired = until_ok("the login has expired", PATIENCE, || {
        let output = bert.typed("postern status");
        if output.code == 1 {
            Ok(output.stderr)
        } else {
            Err(output.stdout)
        }
    });
    holds(
        &expired,
        &[
            "expired at",
            &format!("`postern login --proxy={} --user=bert`", bert.proxy),
        ],
    );

    // The cluster is known now, and what was logged in to comes along.
    let answers = format!("{PASSWORD}\n{}\n", code_at(&bert.secret, 1));
    holds(
        &bert.typed_with("postern login", &answers).ok(),
        &["Databases:          orders\n"],
    );
    assert_eq!(
        bert.psql("test.example-orders", "select item from orders where id = 2")
            .ok(),
        "rope\n"
    );
}

#[test]
fn whoever_is_logged_in_administers_without_a_flag_as_far_as_the_roles_allow() {
    let cluster = shared(Form::OneProcess);
    let cleo = Person::sign_up(&cluster, "cleo");
    for (program, login) in [("tctl", "`tsh login"), ("postern ctl", "`postern login")] {
        holds(
            &cleo.typed(&format!("{program} status")).failed_with(1),
            &["sudo on the auth node", login],
        );
    }
    cleo.log_in("tsh", 0).ok();
    let said = cleo.typed("tctl status").ok();
    holds(&said, &["test.example", &cleo.pin]);
    assert_eq!(cleo.typed("postern ctl status").ok(), said);
    holds(
        &cleo.typed("tctl users ls").failed_with(1),
        &["access denied to perform action \"list\" on \"user\""],
    );
    cleo.typed("tsh logout").ok();
    holds(&cleo.typed("tctl status").failed_with(1), &["nobody is logged in"]);
}
