//! What a command line says, over a file, by itself, and written as a file.

use super::*;
use crate::config::JoinAddress;

const PIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const FILE: &str = "\
postern: {nodename: filed, data_dir: /filed, auth_servers: ['old:1']}
auth_service: {listen_addr: '127.0.0.1:3'}
proxy_service: {web_listen_addr: ':4'}
";

fn over(text: &str, settings: &Settings) -> Result<Config, ConfigError> {
    settings.resolve(settings.onto(file::parse(text, "/etc/postern.yaml")?))
}

fn join(is_proxy: bool) -> Option<JoinSetting> {
    Some(JoinSetting {
        flag: "--auth-server",
        address: "new:2".to_owned(),
        is_proxy,
    })
}

fn database(name: &str) -> Option<DatabaseSetting> {
    Some(DatabaseSetting {
        name: name.to_owned(),
        description: Some("Orders: \"new\" # and old".to_owned()),
        protocol: "postgres".to_owned(),
        uri: "db.example.com:5432".to_owned(),
        labels: Labels::parse("env=dev,live=no,release=1.10,none=").expect("labels"),
        ca_cert_file: Some("/etc/ca file.pem".to_owned()),
    })
}

fn agent() -> Settings {
    Settings {
        nodename: Some("agent-1".to_owned()),
        data_dir: Some("/var/lib/agent".to_owned()),
        auth_token: Some(Secret::new("0123456789e4".to_owned())),
        ca_pins: vec![PIN.to_owned()],
        join: join(true),
        services: Some(vec![NodeKind::Db]),
        database: database("orders"),
        ..Settings::default()
    }
}

#[test]
fn what_is_said_on_the_command_line_stands_before_the_file() {
    let settings = Settings {
        nodename: Some("said".to_owned()),
        listen_ip: Some(IpAddr::from([10, 0, 0, 1])),
        ..Settings::default()
    };
    let config = over(FILE, &settings).expect("valid");
    assert_eq!(config.nodename.as_str(), "said");
    assert_eq!(config.data_dir, Path::new("/filed"), "what is not said is the file's");
    assert_eq!(config.auth.expect("on").listen_addr.to_string(), "10.0.0.1:3");
    assert_eq!(config.proxy.expect("on").web_listen_addr.to_string(), "10.0.0.1:4");
}

#[test]
fn services_that_are_named_run_and_no_others() {
    let services = |kinds: &[NodeKind]| {
        let settings = Settings {
            services: Some(kinds.to_vec()),
            join: join(false),
            database: kinds.contains(&NodeKind::Db).then(|| database("orders")).flatten(),
            ..Settings::default()
        };
        over(FILE, &settings).map(|config| config.services())
    };
    for kinds in [
        &[NodeKind::Auth][..],
        &[NodeKind::Proxy],
        &[NodeKind::Auth, NodeKind::Db],
    ] {
        assert_eq!(services(kinds).expect("valid"), kinds);
    }
}

#[test]
fn an_address_to_join_replaces_those_of_the_file_in_the_words_of_its_version() {
    for (version, is_proxy) in [("v1", true), ("v2", false), ("v3", true), ("v3", false)] {
        let key = if version == "v3" { "auth_server" } else { "auth_servers" };
        let text = format!("version: {version}\nteleport: {{{key}: 'old:1'}}\n");
        let settings = Settings {
            join: join(is_proxy),
            services: Some(vec![NodeKind::Db]),
            database: database("orders"),
            ..Settings::default()
        };
        let config = over(&text, &settings).expect(version);
        match config.join.expect("somewhere") {
            JoinAddress::Proxy(to) => assert!(version == "v3" && is_proxy && to.to_string() == "new:2"),
            JoinAddress::Auth(to) => {
                assert!(version != "v3" || !is_proxy);
                assert_eq!(to.len(), 1);
                assert_eq!(to[0].to_string(), "new:2");
            }
        }
    }
}

#[test]
fn a_database_comes_to_those_of_the_file() {
    let file = "auth_service: {}\ndb_service:\n  databases:\n  - {name: filed, protocol: postgres, uri: db}\n";
    let with = |name: &str| {
        let settings = Settings {
            database: database(name),
            ..Settings::default()
        };
        over(file, &settings)
    };
    let databases = with("orders").expect("valid").db.expect("on").databases;
    assert_eq!(
        databases.iter().map(|db| db.name.as_str()).collect::<Vec<_>>(),
        ["filed", "orders"]
    );
    let refused = with("filed").expect_err("twice").to_string();
    assert!(
        refused.starts_with("--name: ") && refused.contains("already used on line 4"),
        "{refused}"
    );
}

#[test]
fn what_is_written_is_what_is_read() {
    for (version, process) in [
        ("v1", "teleport"),
        ("v2", "postern"),
        ("v3", "teleport"),
        ("v3", "postern"),
    ] {
        let (text, config) = agent().write(Written { version, process }).expect("valid");
        let read = Config::parse(&text, "x").unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(format!("{read:?}"), format!("{config:?}"), "{text}");
        assert!(text.contains(&format!("\n{process}:\n")), "{text}");
        let token = read.auth_token.expect("said").read().expect("a value");
        assert_eq!(
            token.expose(),
            "0123456789e4",
            "a token that looks like a number is a text: {text}"
        );
        let database = &read.db.expect("on").databases[0];
        assert_eq!(
            Some(&database.static_labels),
            agent().database.as_ref().map(|said| &said.labels),
            "{text}"
        );
        assert_eq!(database.description, "Orders: \"new\" # and old");
    }
    let settings = Settings {
        cluster_name: Some("gate.example.com".to_owned()),
        services: Some(vec![NodeKind::Auth, NodeKind::Proxy]),
        web_listen_addr: Some(":443".to_owned()),
        public_addr: Some("gate.example.com:443".to_owned()),
        acme: Some(AcmeSetting {
            email: Some("a@example.com".to_owned()),
        }),
        ..Settings::default()
    };
    let (text, config) = settings
        .write(Written {
            version: "v3",
            process: "teleport",
        })
        .expect("valid");
    let read = Config::parse(&text, "x").unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(format!("{read:?}"), format!("{config:?}"), "{text}");
    assert_eq!(
        read.proxy.expect("on").public_addr[0].to_string(),
        "gate.example.com:443"
    );
}

#[test]
fn settings_alone_are_a_configuration_and_a_bad_one_names_its_flag() {
    let config = agent().load(None).expect("valid");
    assert_eq!(config.services(), [NodeKind::Db]);
    let refused = |change: fn(&mut Settings)| {
        let mut settings = agent();
        change(&mut settings);
        settings.load(None).expect_err("refused").to_string()
    };
    assert!(refused(|s| s.ca_pins[0].truncate(9)).starts_with("--ca-pin: "));
    assert!(refused(|s| s.nodename = Some("a b".to_owned())).starts_with("--nodename: "));
    assert!(refused(|s| s.join = None).starts_with("the command line: postern needs \"proxy_server\""));
    let said = refused(|s| {
        if let Some(database) = &mut s.database {
            database.protocol = "mysql".to_owned();
        }
    });
    assert!(
        said.starts_with("--protocol: ") && said.contains("Postern speaks postgres"),
        "{said}"
    );
}

#[test]
fn a_file_whose_sections_are_no_sections_is_refused_as_it_would_be_without_settings() {
    for text in [
        "- a\n",
        "postern: x\nauth_service: {}\n",
        "auth_service: {}\ndb_service: {databases: x}\n",
    ] {
        let refused = over(text, &agent()).expect_err(text).to_string();
        assert!(refused.starts_with("/etc/postern.yaml:"), "{refused}");
    }
}
