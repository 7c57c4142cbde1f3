//! `docs/guide.md` as a reader follows it: every command as it stands in the page, on hosts of their own.

use crate::harness::namespaces::{Machine, Machines, impediment};
use crate::harness::page::{Block, Kept, Typed, blocks};
use crate::harness::sign_up::{App, shown_secret};
use crate::harness::wait::until_ok;
use crate::harness::{PATIENCE, Process, figure};
use serde_json::Value;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../docs/guide.md");
/// What the page calls the hosts, and their own names.
const HOSTS: [(&str, &str); 3] = [
    ("auth", "proxy.example.com"),
    ("db", "db.example.com"),
    ("client", "client"),
];
/// What the page takes for granted: Debian's PostgreSQL, as its package leaves it.
const INSTALL_POSTGRESQL: &str = "\
    install -d -o postgres -g postgres /var/lib/postgresql /var/log/postgresql /run/postgresql\n\
    pg_createcluster \"$(ls /usr/lib/postgresql | sort -n | tail -n 1)\" main --start -- --no-sync";

/// What everybody who signs up chooses.
const PASSWORD: &str = "correct horse battery staple";
/// What `version` adds in a program for tests, which no reader has.
const OF_TEST_BUILDS: &str = "built with fault-points: for tests only\n";

/// The commands that are typed after `teleport` and after `tsh`, as the page's table has them.
const OF_TELEPORT: [&str; 5] = ["start", "configure", "db start", "db configure", "version"];
const OF_TSH: [&str; 6] = ["login", "logout", "db ls", "db login", "db connect", "db logout"];

#[test]
fn the_guide_runs_as_it_stands_in_the_page() {
    follow_the_guide("the guide", &["flags", "file"], str::to_owned);
}

#[test]
fn the_guide_runs_under_the_names_teleport_tctl_and_tsh() {
    follow_the_guide(
        "the guide under the names teleport, tctl and tsh",
        &["flags", "file"],
        under_the_other_names,
    );
}

#[test]
fn the_guide_runs_for_a_reader_who_starts_the_agent_with_a_file_only() {
    follow_the_guide("the guide with a file for the agent", &["file"], str::to_owned);
}

#[test]
fn the_other_names_are_put_in_place_of_ours() {
    for (ours, other) in [
        ("postern ctl db ls", "tctl db ls"),
        ("postern db ls", "tsh db ls"),
        (
            "> postern db configure create -o file",
            "> teleport db configure create -o file",
        ),
        (
            "postern start --config=/etc/postern.yaml",
            "teleport start --config=/etc/teleport.yaml",
        ),
        ("ln -s postern /usr/local/bin/x", "ln -s postern /usr/local/bin/x"),
    ] {
        assert_eq!(under_the_other_names(ours), other);
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let found = text.split_once(before).and_then(|(_, from)| from.split_once(after));
    found
        .unwrap_or_else(|| panic!("nothing is between {before} and {after}: {text}"))
        .0
}

fn under_the_other_names(text: &str) -> String {
    let mut text = text
        .replace("postern ctl ", "tctl ")
        .replace("/etc/postern.yaml", "/etc/teleport.yaml");
    for (name, verbs) in [("teleport", OF_TELEPORT.as_slice()), ("tsh", &OF_TSH)] {
        for verb in verbs {
            text = text.replace(&format!("postern {verb}"), &format!("{name} {verb}"));
        }
    }
    text
}

/// Follows the page, where there are several ways to one end these `ways`, with the program called by `names`.
fn follow_the_guide(what: &str, ways: &[&str], names: fn(&str) -> String) {
    if let Some(why) = impediment() {
        figure(&format!("NOT RUN: {what}: {why}"));
        return;
    }
    let [(_, auth), (_, db), (_, client)] = HOSTS;
    let mut reader = Reader {
        running: BTreeMap::new(),
        machines: Machines::boot(auth, [db, client]),
        kept: Kept::default(),
        apps: BTreeMap::new(),
        printed: String::new(),
        names,
        typed: 0,
    };
    reader.machine("db").run(INSTALL_POSTGRESQL).ok();
    for block in &blocks(PAGE) {
        let taken = block.way.as_deref().is_none_or(|way| ways.contains(&way));
        if taken {
            reader.follow(block);
        }
    }
    reader.ask_for_more_than_the_page_does();
    figure(&format!("{what}: {} commands on 3 hosts", reader.typed));
}

struct Reader {
    /// What goes on running, by host. Ended before the hosts are.
    running: BTreeMap<String, Process>,
    machines: Machines,
    kept: Kept,
    /// By the person whose they are.
    apps: BTreeMap<String, App>,
    /// Everything that commands printed.
    printed: String,
    /// From the page's names of the program to those that are typed.
    names: fn(&str) -> String,
    typed: usize,
}

impl Reader {
    fn machine(&self, host: &str) -> &Machine {
        let known = HOSTS.iter().find(|(called, _)| *called == host);
        let (_, name) = known.unwrap_or_else(|| panic!("{host} is not a host of the page"));
        self.machines.machine(name)
    }

    /// The page's text as the reader types it.
    fn as_typed(&self, text: &str) -> String {
        self.kept.put_into(&(self.names)(text))
    }

    fn follow(&mut self, block: &Block) {
        for host in &block.hosts {
            if let Some(path) = &block.file {
                self.write(block, host, path);
                continue;
            }
            if block.form {
                self.sign_up(block, host);
                continue;
            }
            for typed in block.commands() {
                self.typed += 1;
                if block.keeps_running {
                    self.start(block, host, &typed.command);
                } else {
                    self.run(block, host, &typed);
                }
            }
        }
    }

    fn run(&mut self, block: &Block, host: &str, typed: &Typed) {
        let command = self.as_typed(&typed.command);
        let mut typed_into: Vec<String> = typed.typed.clone();
        if block.answers {
            typed_into.extend([PASSWORD.to_owned(), self.code_for(&command)]);
        }
        let expected: Vec<String> = typed.expected.iter().map(|line| (self.names)(line)).collect();
        // As on a terminal, where both outputs are one.
        let mut script = format!("exec 2>&1\n{command}");
        if !typed_into.is_empty() {
            script += &format!(" <<'TYPED'\n{}\nTYPED", typed_into.join("\n"));
        }
        let attempt = || {
            let mut output = self.machine(host).run(&script);
            output.stdout = output.stdout.replace(OF_TEST_BUILDS, "");
            let mut kept = self.kept.clone();
            let as_expected = match output.code {
                code if (code != 0) == block.fails => kept.compare(&expected, &output.stdout),
                code => Err(format!("exit code {code}")),
            };
            let place = format!("docs/guide.md:{}: on {host}: {command}", block.line);
            as_expected
                .map(|()| (kept, output.stdout.clone()))
                .map_err(|why| format!("{place}\n{why}\nit printed:\n{}", output.stdout))
        };
        let (kept, printed) = if block.eventually {
            until_ok("the page comes true", PATIENCE, attempt)
        } else {
            attempt().unwrap_or_else(|why| panic!("{why}"))
        };
        self.kept = kept;
        self.printed += &printed;
    }

    /// Opens the address of the block, and fills in what its page asks for.
    fn sign_up(&mut self, block: &Block, host: &str) {
        let link = self.as_typed(block.body.join("").trim());
        // Where the page has put the cluster's authority, in place of the browser's store of authorities.
        let browser = format!("curl --silent --show-error --fail --max-time 20 --cacert host.pem '{link}'");
        let page = self.machine(host).run(&browser).ok();
        let person = between(&page, "<bdi>", "</bdi>").to_owned();
        let mut app = App::of(shown_secret(&page));
        let fields = [("password", PASSWORD), ("confirm", PASSWORD), ("otp", &app.next_code())];
        let fields = fields.map(|(name, value)| format!(" --data-urlencode '{name}={value}'"));
        let done = self.machine(host).run(&(browser + &fields.concat())).ok();
        assert!(done.contains(&format!("--user={person}")), "{done}");
        self.apps.insert(person, app);
    }

    /// The one-time code of the person whose login it is.
    fn code_for(&mut self, command: &str) -> String {
        let (_, from) = command.split_once("--user=").expect("a login says whose it is");
        let person = from.split_whitespace().next().unwrap_or_default();
        let app = self.apps.get_mut(person);
        app.unwrap_or_else(|| panic!("{person} has not signed up")).next_code()
    }

    /// Starts what goes on running, and waits until the node says that it is ready.
    fn start(&mut self, block: &Block, host: &str, command: &str) {
        if block.after_ctrl_c {
            self.end_by_ctrl_c(host);
        }
        let command = self.as_typed(command);
        let log = self.machines.logs.join(format!("{host}-{}.log", block.line));
        let mut process = Process::start(&command, self.machine(host).shell(&command), log);
        until_ok(&format!("{command} is ready"), PATIENCE, || {
            if let Some(code) = process.exit_code() {
                panic!(
                    "docs/guide.md:{}: it ended with {code}: {}",
                    block.line,
                    process.log_tail()
                );
            }
            self.node_process(host).map_err(|why| why + &process.log_tail())
        });
        self.running.insert(host.to_owned(), process);
    }

    /// The process of the host's node, which is there while it is ready.
    fn node_process(&self, host: &str) -> Result<u64, String> {
        let output = self.machine(host).run("cat /var/lib/postern/listening.json");
        let listening: Value = serde_json::from_str(&output.stdout).map_err(|error| error.to_string())?;
        listening["pid"].as_u64().ok_or_else(|| output.stdout.clone())
    }

    fn end_by_ctrl_c(&mut self, host: &str) {
        let Some(mut process) = self.running.remove(host) else {
            return;
        };
        let node = self.node_process(host).expect("it is ready");
        self.machine(host).run(&format!("kill -INT {node}")).ok();
        assert_eq!(process.wait(PATIENCE), 0, "{}", process.log_tail());
    }

    fn write(&self, block: &Block, host: &str, path: &str) {
        let path = self.as_typed(path);
        if block.printed {
            for line in &block.body {
                let printed = line.replace("'/etc/postgresql/", "'/root/");
                assert!(
                    self.printed.lines().any(|line| line == printed),
                    "docs/guide.md:{}: no command printed {printed:?}",
                    block.line
                );
            }
        }
        let text = self.as_typed(&block.body.join("\n")).replace('\'', r"'\''");
        let print = format!("printf '%s\\n' '{text}'");
        let script = match block.at.as_deref() {
            None => format!("{print} > '{path}'"),
            Some("end") => format!("{print} >> '{path}'"),
            Some(_) => format!("{{ {print}; cat '{path}'; }} > /tmp/new && cat /tmp/new > '{path}' && rm /tmp/new"),
        };
        self.machine(host).run(&script).ok();
    }

    /// That the page means what it says: without a certificate nobody gets in, PostgreSQL is out of the client's reach, and
    /// whoever is denied gets the SQLSTATE of that.
    fn ask_for_more_than_the_page_does(&self) {
        let client = self.machine("client");
        let refused = client
            .run("psql 'host=proxy.example.com port=443 user=postgres dbname=postgres sslmode=require' -c 'select 1'")
            .failed_with(2);
        assert!(refused.contains("certificate"), "{refused}");
        let unreachable = client.run("PGCONNECT_TIMEOUT=2 psql 'host=192.0.2.2 user=postgres' -c 'select 1'");
        unreachable.failed_with(2);
        // psql does not show it, so that a start-up message of protocol 3.0 is sent as it is.
        let denied = client.run(
            r"cd .postern/keys/proxy.example.com+443
            printf '\0\0\0\51\0\3\0\0user\0postgres\0database\0postgres\0\0' |
                openssl s_client -quiet -starttls postgres -connect proxy.example.com:443 -CAfile certs.pem \
                    -key bob.key -cert bob-db/proxy.example.com/example-x509.pem 2>&1 | tr '\0' '\n'",
        );
        assert!(denied.stdout.lines().any(|field| field == "C42501"), "{denied:?}");
    }
}
