//! What a configuration says, what is refused and in which words, and that the examples under `config/` hold.

use super::*;
use crate::model::NodeKind;
use std::net::IpAddr;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "/etc/postern.yaml")
}

/// The refusal of `text`, as the operator reads it.
fn refusal(text: &str) -> String {
    match parse(text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

const DATABASE: &str = "\
auth_service: {enabled: yes}
db_service:
  databases:
  - name: example
    protocol: postgres
    uri: db:5432
";

fn yaml_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("roles") {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_example_is_a_valid_configuration() {
    let mut files = Vec::new();
    yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"), &mut files);
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
        let expected: &[NodeKind] = match file.file_name().and_then(|name| name.to_str()) {
            Some("auth.yaml") => &[NodeKind::Auth],
            Some("proxy.yaml") => &[NodeKind::Proxy],
            Some("db.yaml") => &[NodeKind::Db],
            _ => &NodeKind::ALL,
        };
        assert_eq!(config.services(), expected, "{}", file.display());
    }
}

#[test]
fn every_supported_key_stands_in_an_example() {
    let mut files = Vec::new();
    yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"), &mut files);
    let all: String = files
        .iter()
        .map(|f| std::fs::read_to_string(f).expect("read"))
        .collect();
    let sections = [
        keys::PROCESS,
        keys::LOG,
        keys::LOG_FORMAT,
        keys::AUTH,
        keys::PROXY,
        keys::ACME,
        keys::KEYPAIR,
        keys::DB,
        keys::DATABASE,
        keys::DATABASE_TLS,
        keys::DYNAMIC_LABEL,
        keys::SERVER_CERTIFICATE,
        keys::RESOURCE_MATCHER,
    ];
    // The list of formats v1 and v2 is named in a comment only.
    for key in sections
        .iter()
        .flat_map(|keys| keys.supported)
        .filter(|key| **key != "auth_servers")
    {
        assert!(all.contains(&format!("{key}:")), "{key} is in no example");
    }
}

#[test]
fn the_log_goes_to_a_stream_or_to_a_file_with_an_absolute_path() {
    let log = |log: &str| format!("postern: {{log: {log}}}\nauth_service: {{enabled: yes}}\n");
    let output = |word: &str| parse(&log(&format!("{{output: {word}}}"))).expect("valid").log.output;
    assert_eq!(output("stdout"), LogOutput::Stdout);
    assert_eq!(
        output("/var/log/postern.log"),
        LogOutput::File("/var/log/postern.log".into())
    );
    let all = parse(&log("{severity: WARN, output: stderr, format: {output: json}}"))
        .expect("valid")
        .log;
    assert_eq!(
        (all.severity, all.format, all.output),
        (Severity::Warn, LogFormat::Json, LogOutput::Stderr)
    );
    assert!(refusal(&log("{output: syslog}")).contains("the journal takes what is written to stderr"));
    for bad in ["postern.log", "/var/log/"] {
        assert!(
            refusal(&log(&format!("{{output: {bad}}}"))).contains("there are stderr, stdout and the path of a file")
        );
    }
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = parse("teleport: {nodename: here}\nauth_service: {}\nproxy_service: {enabled: yes}\n").expect("valid");
    assert_eq!(config.version, Version::V1);
    assert_eq!(config.data_dir, Path::new("/var/lib/postern"));
    assert_eq!(config.log.severity, Severity::Info);
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
    assert_eq!(config.diag_addr, None);
    assert_eq!(config.worker_threads, None);
    let auth = config.auth.expect("enabled by being there");
    assert_eq!(auth.cluster_name.as_str(), "here");
    assert_eq!(auth.listen_addr.to_string(), "0.0.0.0:3025");
    assert_eq!(auth.policy_max_age, Duration::from_secs(300));
    assert_eq!(
        config.proxy.expect("enabled").web_listen_addr.to_string(),
        "0.0.0.0:3080"
    );
    assert!(config.db.is_none());
}

#[test]
fn the_grace_of_a_stop_is_at_most_an_hour_and_may_be_nothing() {
    let grace = |text: &str| {
        parse(&format!("postern: {{shutdown_grace: {text}}}\nauth_service: {{}}")).map(|config| config.shutdown_grace)
    };
    assert_eq!(grace("0s").expect("at once"), Duration::ZERO);
    assert_eq!(grace("1h").expect("the most"), MAX_SHUTDOWN_GRACE);
    for (text, why) in [("61m", "SIGQUIT"), ("30", "not a duration"), ("soon", "not a duration")] {
        let error = grace(text).expect_err(text).to_string();
        assert!(error.contains("shutdown_grace") && error.contains(why), "{error}");
    }
}

#[test]
fn the_diagnostic_port_has_a_default_and_needs_no_more_than_a_host() {
    let config = parse("postern: {diag_addr: 127.0.0.1}\nauth_service: {}").expect("valid");
    assert_eq!(config.diag_addr.expect("set").to_string(), "127.0.0.1:3000");
    assert!(parse("postern: {diag_addr: \"127.0.0.1:port\"}\nauth_service: {}").is_err());
}

#[test]
fn without_a_node_name_the_machine_gives_its_own() {
    assert!(!parse("auth_service: {}").expect("valid").nodename.as_str().is_empty());
}

#[test]
fn enabled_is_understood_in_every_spelling() {
    for yes in ["yes", "\"yes\"", "true", "on", "Yes", "'true'"] {
        assert!(parse(&format!("auth_service: {{enabled: {yes}}}")).is_ok(), "{yes}");
    }
    for no in ["no", "\"no\"", "false", "off", "No"] {
        let text = format!("auth_service: {{}}\nproxy_service: {{enabled: {no}}}\nssh_service: {{enabled: {no}}}");
        assert_eq!(parse(&text).expect("valid").services(), [NodeKind::Auth], "{no}");
    }
    assert_eq!(
        refusal("auth_service:\n  enabled: maybe\n"),
        "/etc/postern.yaml:2:12: enabled in auth_service: \"maybe\" is neither yes nor no"
    );
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_key() {
    assert_eq!(
        refusal("proxy_service:\n  enabled: yes\n  web_listen_adr: :443\n"),
        "/etc/postern.yaml:3:3: unknown key \"web_listen_adr\" in proxy_service; did you mean \"web_listen_addr\"?"
    );
    assert_eq!(
        refusal("proxy_service:\n  enabled: yes\n  cancel_without_tsl: no\n"),
        "/etc/postern.yaml:3:3: unknown key \"cancel_without_tsl\" in proxy_service; did you mean \"cancel_without_tls\"?"
    );
    assert_eq!(
        refusal("proxy_servise: {}\n"),
        "/etc/postern.yaml:1:1: unknown key \"proxy_servise\" in the file; did you mean \"proxy_service\"?"
    );
    assert_eq!(
        refusal("teleport:\n  cluster_name: x\n"),
        "/etc/postern.yaml:2:3: unknown key \"cluster_name\" in teleport; it belongs into auth_service"
    );
    assert!(refusal("db_service: {blahblah: 1}").ends_with("known are databases, enabled, resources"));
}

#[test]
fn a_key_of_teleport_that_is_not_acted_on_is_refused_by_name() {
    assert_eq!(
        refusal("proxy_service:\n  ui: {scrollback_lines: 100}\n"),
        "/etc/postern.yaml:2:3: \"ui\" in proxy_service is known but not supported by this version of Postern; remove it"
    );
    assert!(
        parse("teleport: {diag_addr: \"\"}\nproxy_service: {acme: {}, https_keypairs: []}\nauth_service: {}").is_ok(),
        "generated files hold such keys empty, and then they ask for nothing"
    );
}

#[test]
fn a_service_that_does_not_exist_may_only_be_disabled() {
    let text = |ssh: &str| format!("auth_service: {{}}\nssh_service: {ssh}\n");
    assert!(parse(&text("{enabled: no}")).is_ok());
    for other in ["{enabled: yes}", "{}", "", "{enabled: no, labels: {a: b}}"] {
        if other.is_empty() {
            assert!(parse(&text(other)).is_ok(), "nothing was said");
        } else {
            assert_eq!(
                refusal(&text(other)),
                "/etc/postern.yaml:2:14: ssh_service is a service that Postern does not have; it may only say `enabled: no`"
            );
        }
    }
}

#[test]
fn a_value_of_the_wrong_type_says_what_was_expected() {
    assert_eq!(
        refusal("teleport:\n  data_dir: [a, b]\n"),
        "/etc/postern.yaml:2:13: data_dir in teleport must be a path, not a list"
    );
    assert_eq!(
        refusal("auth_service: nonsense\n"),
        "/etc/postern.yaml:1:15: auth_service must be a section with keys of its own, not a single value"
    );
    assert!(refusal("db_service: {databases: {name: x}}").contains("must be a list of databases, not a section"));
    assert!(refusal("- a\n- b\n").contains("the file must be a section"));
}

#[test]
fn a_scalar_keeps_the_spelling_of_the_file() {
    let text =
        format!("{DATABASE}    static_labels: {{release: 1.10, live: no, number: 0x10, quoted: \"on\", none: ''}}\n");
    let db = parse(&text).expect("valid").db.expect("enabled");
    assert_eq!(
        db.databases[0].static_labels.to_string(),
        "live=no,none=,number=0x10,quoted=on,release=1.10"
    );
}

#[test]
fn an_alias_repeats_what_it_names_spelling_included() {
    let text = format!("{DATABASE}    static_labels: {{a: &v 1.10, b: *v}}\n");
    let db = parse(&text).expect("valid").db.expect("enabled");
    assert_eq!(db.databases[0].static_labels.to_string(), "a=1.10,b=1.10");
}

#[test]
fn two_names_of_the_process_section_are_one_too_many() {
    let refused = refusal("teleport: {nodename: a}\npostern: {nodename: b}\nauth_service: {}\n");
    assert!(refused.starts_with("/etc/postern.yaml:2:10: "), "{refused}");
}

#[test]
fn broken_yaml_names_the_line() {
    for text in [
        "auth_service: [\n",
        "a: b: c\n",
        "auth_service: {}\nauth_service: {}\n",
        "auth_service:\n\tenabled: yes\n",
    ] {
        let refused = refusal(text);
        assert!(
            refused.starts_with("/etc/postern.yaml:") && refused.contains("not valid YAML"),
            "{refused}"
        );
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
    assert!(refusal("auth_service: {}\n---\nproxy_service: {}\n").contains("not valid YAML"));
}

#[test]
fn a_file_without_a_service_is_refused() {
    for text in ["", "# nothing\n", "version: v3\n", "auth_service: {enabled: no}\n"] {
        assert!(refusal(text).contains("no service is enabled"), "{text:?}");
    }
    assert!(refusal("version: v4\nauth_service: {}").contains("there are v1, v2 and v3"));
}

#[test]
fn files_that_grow_when_they_are_read_or_are_too_large_are_refused() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (previous, name) in ('a'..'h').zip('b'..'i') {
        bomb.push_str(&format!(
            "{name}: &{name} [{}]\n",
            vec![format!("*{previous}"); 10].join(",")
        ));
    }
    assert!(refusal(&bomb).contains("not valid YAML"));
    assert!(refusal(&"[".repeat(5000)).contains("not valid YAML"));
    let large = "#".repeat(usize::try_from(MAX_FILE_BYTES).expect("fits") + 1);
    assert!(refusal(&large).contains("larger than 1048576 bytes"));
}

#[test]
fn databases_are_checked_one_by_one() {
    let second = |entry: &str| refusal(&format!("{DATABASE}  - {entry}\n"));
    assert_eq!(
        second("{name: example, protocol: postgres, uri: db}"),
        "/etc/postern.yaml:7:5: the database name \"example\" is already used on line 4; give each database its own name"
    );
    assert!(
        second("{name: b, protocol: mysql, uri: db}")
            .contains("protocol in database \"b\": \"mysql\" is not supported")
    );
    assert!(second("{name: b, protocol: postgres, uri: 'db:x'}").contains("\"x\" is not a port"));
    assert!(second("{name: b, protocol: postgres}").contains("database \"b\" needs \"uri\""));
    assert!(second("{name: b_c, protocol: postgres, uri: db}").contains("must not contain '_'"));
    assert!(second("{protocol: postgres, uri: db}").contains("needs \"name\""));
    assert!(
        second("{name: b, protocol: postgres, uri: db, admin_user: {name: x}}").contains("known but not supported")
    );
    assert!(refusal("auth_service: {}\ndb_service: {enabled: yes}").contains("needs \"databases\""));
}

/// The one database of a file that says `more` about it.
fn with_database(more: &str) -> Result<DatabaseConfig, ConfigError> {
    parse(&format!("{DATABASE}    {more}\n")).map(|config| config.db.expect("enabled").databases.remove(0))
}

#[test]
fn the_verification_of_a_database_is_full_unless_the_file_says_less() {
    let mode = |tls: &str| with_database(&format!("tls: {tls}")).map(|database| database.tls.mode);
    assert_eq!(mode("{}").expect("valid"), DatabaseTlsMode::VerifyFull);
    for expected in [
        DatabaseTlsMode::VerifyFull,
        DatabaseTlsMode::VerifyCa,
        DatabaseTlsMode::Insecure,
    ] {
        assert_eq!(
            mode(&format!("{{mode: {}}}", expected.label())).expect("valid"),
            expected
        );
    }
    let refused = |tls: &str| mode(tls).expect_err(tls).to_string();
    assert!(refused("{mode: require}").contains("there are verify-full (chain and name), verify-ca"));
    assert!(
        refused("{mode: insecure, ca_cert_file: /ca.pem}").contains("with mode: insecure no authority is looked at")
    );
    assert!(refused("{trust_system_cert_pool: yes}").contains("known but not supported"));
}

#[test]
fn an_agent_may_serve_registered_databases_that_its_labels_match() {
    let resources = |text: &str| parse(&format!("auth_service: {{}}\ndb_service: {{resources: {text}}}"));
    let matchers = resources("[{labels: {env: [dev, test]}}, {labels: {'*': '*'}}]");
    let db = matchers.expect("valid").db.expect("enabled");
    let of = |label: &str| Labels(std::collections::BTreeMap::from([("env".to_owned(), label.to_owned())]));
    assert!(db.databases.is_empty() && db.resources.len() == 2);
    assert!(db.resources[0].matches(&of("test")) && !db.resources[0].matches(&of("prod")));
    assert!(db.resources[1].matches(&of("prod")));
    let refused = |text: &str| resources(text).expect_err(text).to_string();
    assert!(refused("[{labels: {}}]").contains("'*': '*' matches all"));
    assert!(refused("[{labels: {env: dev}, aws: {assume_role_arn: x}}]").contains("\"aws\" in an entry of resources"));
    assert!(refused("[{labels: {env: '{{internal.env}}'}}]").contains("a template stands for a person's traits"));
    assert!(refused("{labels: {env: dev}}").contains("must be a list of labels"));
}

#[test]
fn a_certificate_of_postgresql_is_for_the_names_of_its_database_only() {
    let read = |text: &str| with_database(&format!("server_certificate: {text}"));
    let kept = read("{out: /pg/server}")
        .expect("valid")
        .server_certificate
        .expect("given");
    assert_eq!(
        (kept.hosts, kept.ttl),
        (vec!["db".to_owned()], Duration::from_secs(2190 * 3600))
    );
    let refused = |text: &str| read(text).expect_err(text).to_string();
    assert!(refused("{out: /pg/server, hosts: [db, other]}").contains("neither the host of uri nor tls.server_name"));
    assert!(refused("{out: /pg/server, ttl: 9000h}").contains("between 1h and 2400h"));
    assert!(refused("{out: server}").contains("must be an absolute path"));
    assert!(refused("{hosts: db}").contains("needs \"out\""));
    let named = with_database("tls: {server_name: pg.internal}\n    server_certificate: {out: /pg/server}");
    let kept = named.expect("valid").server_certificate.expect("given");
    assert_eq!(kept.hosts, ["pg.internal"]);
    let foreign = with_database("tls: {ca_cert_file: /ca.pem}\n    server_certificate: {out: /pg/server}");
    assert!(
        foreign
            .expect_err("two authorities")
            .to_string()
            .contains("remove one of")
    );
}

#[test]
fn a_dynamic_label_has_a_command_and_a_name_of_its_own() {
    let labels = |text: &str| with_database(&format!("dynamic_labels: {text}"));
    let read = labels("[{name: host, command: [hostname, -s], period: 1m30s}, {name: b, command: /bin/b}]");
    let read = read.expect("valid").dynamic_labels;
    assert_eq!(read[0].command, ["hostname", "-s"]);
    assert_eq!(read[0].period, Duration::from_secs(90));
    assert_eq!(read[1].period, Duration::from_secs(60));
    let refused = |text: &str| labels(text).expect_err(text).to_string();
    assert!(refused("[{name: a, command: [x], period: 0s}]").contains("shorter than 1s"));
    assert!(refused("[{name: a}]").contains("needs \"command\""));
    assert!(refused("[{command: [x]}]").contains("needs \"name\""));
    assert!(refused("[{name: a, command: 'date +%s'}]").contains("no shell reads it"));
    assert!(refused("[{name: a, command: [x]}, {name: a, command: [y]}]").contains("stands there twice"));
    assert!(refused("{a: [x]}").contains("must be a list"));
    let clash = "static_labels: {env: prod}\n    dynamic_labels: [{name: env, command: [x]}]";
    let refused = with_database(clash).expect_err("two values").to_string();
    assert!(refused.contains("is a static label of this database, too"), "{refused}");
}

#[test]
fn version_3_says_auth_server_or_proxy_server_and_the_others_auth_servers() {
    let db = DATABASE.replace("auth_service: {enabled: yes}\n", "");
    let join = |head: &str| parse(&format!("{head}\n{db}")).map(|config| config.join.expect("somewhere"));
    let proxy = Endpoint::parse("p:443", 1).expect("valid");
    assert_eq!(
        join("version: v3\npostern: {proxy_server: 'p:443'}").expect("valid"),
        JoinAddress::Proxy(proxy.clone())
    );
    assert_eq!(
        join("teleport: {auth_servers: ['p:443']}").expect("valid"),
        JoinAddress::Auth(vec![proxy])
    );
    let refused = |head: &str| join(head).expect_err(head).to_string();
    assert!(refused("version: v3\npostern: {auth_servers: [a]}").contains("use auth_server or proxy_server"));
    assert!(refused("postern: {proxy_server: a}").contains("needs `version: v3`"));
    assert!(refused("version: v3\npostern: {proxy_server: a, auth_server: b}").contains("exclude each other"));
    assert!(refused("").contains("needs \"auth_servers\""));
    assert!(
        refusal("version: v3\npostern: {proxy_server: a}\nproxy_service: {}")
            .contains("a proxy without auth_service joins at auth")
    );
}

#[test]
fn a_static_token_admits_the_kinds_that_it_names() {
    let token = |text: &str| {
        parse(&format!("auth_service: {{tokens: ['{text}']}}")).map(|c| c.auth.expect("on").tokens.remove(0))
    };
    let read = token("proxy,node,db:0123456789abcdef").expect("valid");
    assert_eq!(read.kinds, [NodeKind::Proxy, NodeKind::Db]);
    assert_eq!(read.read().expect("a value").expose(), "0123456789abcdef");
    let refused = |text: &str| token(text).expect_err(text).to_string();
    assert!(refused("db:short-secret").contains("at least 16 characters long, because it never expires"));
    assert!(
        !refused("db:short-secret").contains("short-secret"),
        "a secret is not repeated"
    );
    assert!(refused(":0123456789abcdef").contains("must name the kinds"));
    assert!(refused("node:0123456789abcdef").contains("admits nothing"));
    assert!(refused("kube:0123456789abcdef").contains("not a kind of node"));
    assert!(refused("0123456789abcdef").contains("kinds:secret"));
    assert!(!format!("{read:?}").contains("0123456789abcdef"), "nor printed");
}

#[test]
fn a_secret_file_is_read_when_it_is_asked_for_and_without_its_last_newline() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    let text = format!(
        "teleport: {{auth_token: {0}}}\nauth_service: {{tokens: ['db:{0}']}}",
        path.display()
    );
    let config = parse(&text).expect("the file is not needed to parse");
    let token = config.auth_token.expect("given");
    assert!(
        token
            .read()
            .expect_err("no file")
            .to_string()
            .contains("cannot read the token from")
    );
    std::fs::write(&path, "s3cret\n").expect("write");
    assert_eq!(token.read().expect("there").expose(), "s3cret");
    let refused = config.auth.expect("on").tokens[0]
        .read()
        .expect_err("short")
        .to_string();
    assert!(
        refused.contains("at least 16 characters") && !refused.contains("s3cret"),
        "{refused}"
    );
    std::fs::write(&path, "\n").expect("write");
    assert!(token.read().expect_err("empty").to_string().contains("is empty"));
    std::fs::write(&path, "x".repeat(5000)).expect("write");
    assert!(token.read().expect_err("large").to_string().contains("larger than"));
}

#[test]
fn ca_pins_are_a_value_a_list_or_a_file() {
    let pin = format!("sha256:{}", "Ab".repeat(32));
    let pins = |value: &str| parse(&format!("teleport: {{ca_pin: {value}}}\nauth_service: {{}}")).map(|c| c.ca_pins);
    assert_eq!(
        pins(&pin).expect("valid")[0].read().expect("a value"),
        [pin.to_lowercase()]
    );
    assert_eq!(pins(&format!("['{pin}', '{pin}']")).expect("valid").len(), 2);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pin");
    std::fs::write(&path, format!("{pin}\n{pin}\n")).expect("write");
    assert_eq!(
        pins(&path.display().to_string()).expect("valid")[0]
            .read()
            .expect("a file")
            .len(),
        2
    );
    assert!(
        pins("sha256:abc")
            .expect_err("short")
            .to_string()
            .contains("64 hexadecimal digits")
    );
}

#[test]
fn a_public_address_takes_the_port_of_the_listener() {
    let proxy = |text: &str| {
        parse(&format!("auth_service: {{}}\nproxy_service: {text}")).map(|config| config.proxy.expect("enabled"))
    };
    let read = proxy("{web_listen_addr: ':443', public_addr: a.example.com}").expect("valid");
    assert_eq!(read.public_addr[0].to_string(), "a.example.com:443");
    assert_eq!(read.web_listen_addr.host, ListenHost::All);
    let read = proxy("{web_listen_addr: '127.0.0.1:0', public_addr: [a, 'b:1']}").expect("valid");
    assert_eq!(read.public_addr[1].to_string(), "b:1");
    assert_eq!(read.web_listen_addr.host, ListenHost::Ip(IpAddr::from([127, 0, 0, 1])));
}

#[test]
fn a_file_that_is_not_text_or_not_there_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.yaml");
    assert!(
        Config::load(&path)
            .expect_err("none")
            .to_string()
            .contains("cannot read the configuration file")
    );
    std::fs::write(&path, [0xff, 0xfe, 0x00]).expect("write");
    assert!(
        Config::load(&path)
            .expect_err("binary")
            .to_string()
            .contains("not UTF-8")
    );
}

#[test]
fn acme_is_read_and_is_off_unless_it_is_enabled() {
    let acme = |text: &str| {
        parse(&format!("auth_service: {{}}\nproxy_service: {{acme: {text}}}"))
            .map(|config| config.proxy.expect("enabled").acme)
    };
    let read = acme("{enabled: yes, email: a@example.com, uri: 'https://acme.example.com/directory'}");
    assert_eq!(
        read.expect("valid"),
        Some(AcmeConfig {
            email: Some("a@example.com".to_owned()),
            uri: Some("https://acme.example.com/directory".to_owned()),
        })
    );
    assert_eq!(acme("{email: a@example.com}").expect("valid"), None);
    assert!(
        acme("{enabled: yes, email: nobody}")
            .expect_err("no @")
            .to_string()
            .contains("e-mail address")
    );
    assert!(
        acme("{enabled: yes, uri: 'http://x'}")
            .expect_err("no TLS")
            .to_string()
            .contains("https://")
    );
    assert!(
        acme("{enabled: yes, mail: x}")
            .expect_err("unknown")
            .to_string()
            .contains("did you mean \"email\"")
    );
}

#[test]
fn a_cancel_request_without_tls_is_taken_unless_the_file_says_no() {
    let says = |text: &str| {
        let config = parse(&format!("auth_service: {{}}\nproxy_service: {text}")).expect("valid");
        config.proxy.expect("enabled").cancel_without_tls
    };
    assert!(says("{}"));
    assert!(says("{cancel_without_tls: yes}"));
    assert!(!says("{cancel_without_tls: no}"));
}
