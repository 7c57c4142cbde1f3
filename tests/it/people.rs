//! What people ask of auth through a proxy: who they are, which databases they see, a certificate for one, and the administration
//! of the cluster as far as their roles allow it.

use crate::harness::client::Client;
use crate::harness::cluster::{Cluster, out, user};
use crate::harness::process::run;
use crate::harness::{Form, Output, PATIENCE, TestDir, postern, shared};
use data_encoding::BASE64;
use postern::cli::people_client::PeopleClient;
use postern::model::{Endpoint, NodeKind, SystemClock};
use postern::net::socket;
use postern::net::tls::{Credentials, NodeClient};
use postern::pki::PrivateKey;
use postern::pki::pem::certificates_from_pem;
use postern::protocol::alpn;
use postern::web::people_api::{Certificates, Me, MyDatabases, Renew, Route};
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A login of `person`, in files, as `ctl auth sign` makes it.
fn login(cluster: &Cluster, person: &str) -> (TestDir, PathBuf) {
    let home = TestDir::new();
    let prefix = home.join("login");
    let person = format!("--user={person}");
    cluster
        .ctl(&["auth", "sign", "--format=file", &person, "--ttl=1h", &out(&prefix)])
        .ok();
    (home, prefix)
}

fn file(prefix: &Path, ending: &str) -> Vec<u8> {
    std::fs::read(prefix.with_extension(ending)).expect("it was signed")
}

fn client(cluster: &Cluster, prefix: &Path, with_certificate: bool) -> PeopleClient {
    let certificates = |ending| certificates_from_pem(&file(prefix, ending), "a file").expect("certificates");
    let key = String::from_utf8(file(prefix, "key")).expect("PEM");
    let credentials = Credentials {
        chain: certificates("crt"),
        key: PrivateKey::from_pem(&key).expect("a key"),
    };
    let proxy = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: cluster.proxy_port(),
    };
    PeopleClient::new(proxy, &certificates("cas"), with_certificate.then_some(&credentials)).expect("usable")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("in time") })
}

/// `ctl` from another machine.
fn remote(cluster: &Cluster, prefix: &Path, arguments: &[&str]) -> Output {
    let home = TestDir::new();
    let mut command = postern(home.path());
    let proxy = format!("127.0.0.1:{}", cluster.proxy_port());
    command
        .args(["ctl", "--proxy", &proxy, "--identity"])
        .arg(prefix)
        .args(arguments);
    run(command, PATIENCE)
}

fn a_database_is_reached_with_a_certificate_that_auth_gave_through_the_proxy(form: Form) {
    let cluster = shared(form);
    let (_home, prefix) = login(&cluster, "alice");
    let key = PrivateKey::generate().expect("a key");
    let ask = Renew {
        csr: BASE64.encode(&key.csr("alice").expect("a request")),
        route: Some(Route {
            service: "orders".to_owned(),
            db_user: Some("app".to_owned()),
            db_name: None,
        }),
    };
    let (me, seen, given): (Me, MyDatabases, Certificates) = block_on(async {
        let alice = client(&cluster, &prefix, true);
        (
            alice.me().await.expect("who it is"),
            alice.databases().await.expect("a list"),
            alice.renew(&ask).await.expect("a certificate"),
        )
    });
    assert_eq!((me.user.as_str(), me.roles), ("alice", vec!["tester".to_owned()]));
    let orders = seen.databases.iter().find(|database| database.name == "orders");
    let users = orders
        .map(|database| database.allowed_users.clone())
        .expect("it is seen");
    assert!(users.contains(&"app".to_owned()), "{users:?}");
    assert_eq!(given.not_after, me.valid_until, "no longer than the login");

    let home = TestDir::new();
    let bound = home.join("orders");
    let key = key.to_pem().expect("PEM");
    for (ending, text) in [
        ("crt", &given.certificate),
        ("cas", &given.host_ca),
        ("key", key.expose()),
    ] {
        postern::pki::pem::write_private(&bound.with_extension(ending), text.as_bytes()).expect("ours");
    }
    let psql = Client::new(home, bound, cluster.proxy_port(), "app", "app");
    assert_eq!(psql.psql("select item from orders where id = 2").ok().trim(), "rope");
    cluster.audited("alice", "TC000I", |event| {
        event["identity"]["route_to_database"]["username"] == "app"
    });

    let said = block_on(async { client(&cluster, &prefix, false).me().await }).expect_err("nobody");
    assert!(said.to_string().contains("you are not logged in"), "{said}");
}

fn administration_from_another_machine_is_what_the_roles_allow(form: Form) {
    let cluster = shared(form);
    let (plain, editor) = ("plain-person", "editor-person");
    cluster
        .create(&(user(plain, "access", "app") + "---\n" + &user(editor, "editor", "")))
        .ok();
    let role = "kind: role\nversion: v7\nmetadata:\n  name: made-remotely\nspec: {}\n";
    let directory = TestDir::new();
    let file = directory.write("role.yaml", role);
    let file = file.display().to_string();

    let (_home, prefix) = login(&cluster, plain);
    let status = remote(&cluster, &prefix, &["status"]).ok();
    assert!(status.contains("sha256:"), "{status}");
    let said = remote(&cluster, &prefix, &["create", &file]).failed_with(1);
    assert!(
        said.contains("access denied to perform action \"create\" on \"role\""),
        "{said}"
    );

    let (_home, prefix) = login(&cluster, editor);
    remote(&cluster, &prefix, &["create", &file]).ok();
    remote(&cluster, &prefix, &["get", "role/made-remotely"]).ok();
    cluster.audited(editor, "T9000I", |event| event["name"] == "made-remotely");
    remote(&cluster, &prefix, &["rm", "role/made-remotely"]).ok();
    let said = remote(&cluster, &prefix, &["audit", "ls"]).failed_with(1);
    assert!(said.contains("on \"event\""), "{said}");
}

/// A client at `from` that gets as far as auth's own TLS, and says nothing.
async fn silent(from: Ipv4Addr, proxy_port: u16, authorities: &[CertificateDer<'static>]) -> io::Result<impl Sized> {
    let raw = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    raw.bind(&SocketAddr::from((from, 0)).into())?;
    raw.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, proxy_port)).into())?;
    raw.set_nonblocking(true)?;
    let tcp = socket::adopt(raw.into())?;
    let to = |peer, alpn| NodeClient::person(None, authorities, peer, alpn, &SystemClock::shared()).expect("usable");
    let outer = to(NodeKind::Proxy, alpn::PERSON_TO_AUTH).connect(tcp).await?;
    to(NodeKind::Auth, alpn::PERSON).connect(outer).await
}

fn an_address_that_holds_connections_to_auth_open_keeps_only_itself_out(form: Form) {
    let cluster = shared(form);
    let (_home, prefix) = login(&cluster, "alice");
    let authorities = certificates_from_pem(&file(&prefix, "cas"), "a file").expect("certificates");
    let another = Ipv4Addr::new(127, 0, 0, 2);
    let (reached, me) = block_on(async {
        let dials = (0..280).map(|_| silent(another, cluster.proxy_port(), &authorities));
        let held = futures::future::join_all(dials).await;
        let reached = held.iter().filter(|silent| silent.is_ok()).count();
        (reached, client(&cluster, &prefix, true).me().await)
    });
    assert!((32..=64).contains(&reached), "{reached} of one address");
    assert_eq!(me.expect("an answer to another address").user, "alice");
}

crate::harness::in_both_forms! {
    a_database_is_reached_with_a_certificate_that_auth_gave_through_the_proxy,
    administration_from_another_machine_is_what_the_roles_allow,
    an_address_that_holds_connections_to_auth_open_keeps_only_itself_out,
}
