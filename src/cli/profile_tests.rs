//! The files of logins: what is kept, who may touch it, and commands at the same time.

use super::*;
use crate::model::{ClusterName, DbName, DbUser, PersonName, RoleName, Route, ServiceName, Traits};
use crate::pki::pem::certificates_to_pem;
use crate::pki::{CaKind, CertificateAuthority, PersonProfile};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate(CaKind::User, &ClusterName::new("gate").unwrap(), NOW).unwrap()
}

fn certificate(authority: &CertificateAuthority, key: &PrivateKey, service: Option<&str>) -> String {
    let profile = PersonProfile {
        name: PersonName::new("alice").unwrap(),
        roles: vec![RoleName::new("access").unwrap()],
        traits: Traits::new(),
        mfa: true,
        route: service.map(|service| Route {
            service: ServiceName::new(service).unwrap(),
            db_user: Some(DbUser::new("reader").unwrap()),
            db_name: Some(DbName::new("orders").unwrap()),
        }),
        pinned_ip: None,
    };
    let end = NOW + Duration::from_secs(3600);
    let issued = authority.issue_person(&profile, &key.public_key(), end, NOW).unwrap();
    certificates_to_pem(&[issued]).unwrap()
}

fn profile(proxy: &str, user: &str) -> Profile {
    Profile {
        proxy: proxy.to_owned(),
        user: user.to_owned(),
        cluster: "gate".to_owned(),
        roles: vec!["access".to_owned()],
    }
}

fn log_in(home: &Home, profile: &Profile) -> PrivateKey {
    let key = PrivateKey::generate().unwrap();
    let pem = certificate(&authority(), &key, None);
    home.write()
        .unwrap()
        .save_login(profile, &key, &pem, &host_only())
        .unwrap();
    key
}

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(&dir.path().join("home")).unwrap();
    (dir, home)
}

fn host_only() -> Authorities<'static> {
    Authorities {
        host: "the authority",
        of_machine: None,
    }
}

#[test]
fn a_login_is_kept_for_its_owner_alone_and_read_back() {
    let (_dir, home) = home();
    assert_eq!(home.current().unwrap(), None);
    let alice = profile("proxy.example.com:443", "alice");
    let key = log_in(&home, &alice);
    assert_eq!(home.current().unwrap().as_ref(), Some(&alice));
    let kept = home.credentials(&alice).unwrap().expect("logged in");
    assert_eq!(kept.key.public_key(), key.public_key());
    assert_eq!(
        (kept.claims.name.as_str(), kept.host_ca.as_str()),
        ("alice", "the authority")
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.dir), 0o700);
    assert_eq!(mode(&home.key_file(&alice).unwrap()), 0o600);
    assert_eq!(mode(home.key_file(&alice).unwrap().parent().unwrap()), 0o700);
}

#[test]
fn logins_at_several_proxies_and_of_several_users_stay_apart() {
    let (_dir, home) = home();
    let (one, other) = (profile("one:443", "alice"), profile("other:3080", "alice"));
    let bob = profile("one:443", "bob");
    log_in(&home, &one);
    log_in(&home, &bob);
    log_in(&home, &other);
    assert_eq!(home.current().unwrap(), Some(other.clone()));
    assert_eq!(home.profiles().unwrap(), [bob.clone(), other.clone()]);
    home.write().unwrap().remove_login(&bob).unwrap();
    assert!(home.credentials(&bob).unwrap().is_none());
    assert!(home.credentials(&one).unwrap().is_some(), "alice's key stays");
    home.write().unwrap().remove_login(&other).unwrap();
    assert!(home.credentials(&one).unwrap().is_some());
    assert_eq!(home.current().unwrap(), None);
}

#[test]
fn the_authority_of_a_proxy_is_known_to_the_next_user_until_the_last_one_has_logged_out() {
    let (_dir, home) = home();
    let (alice, bob) = (profile("one:443", "alice"), profile("one:443", "bob"));
    assert_eq!(home.host_ca(&bob).unwrap(), None);
    log_in(&home, &alice);
    assert_eq!(home.host_ca(&bob).unwrap().as_deref(), Some("the authority"));
    home.write().unwrap().remove_login(&alice).unwrap();
    assert_eq!(home.host_ca(&bob).unwrap(), None);
}

#[test]
fn a_certificate_for_a_database_is_listed_until_it_is_removed_or_the_key_is_another() {
    let (_dir, home) = home();
    let alice = profile("one:443", "alice");
    let key = log_in(&home, &alice);
    let authority = authority();
    for service in ["orders", "stock"] {
        let pem = certificate(&authority, &key, Some(service));
        home.write()
            .unwrap()
            .save_database(&alice, &key, service, &pem)
            .unwrap();
    }
    let names = |home: &Home| -> Vec<String> {
        home.databases(&alice)
            .unwrap()
            .into_iter()
            .map(|database| database.service)
            .collect()
    };
    assert_eq!(names(&home), ["orders", "stock"]);
    assert_eq!(home.databases(&alice).unwrap()[0].db_user.as_deref(), Some("reader"));
    assert!(home.write().unwrap().remove_database(&alice, "orders").unwrap());
    assert!(!home.write().unwrap().remove_database(&alice, "orders").unwrap());
    assert_eq!(names(&home), ["stock"]);

    log_in(&home, &alice);
    assert_eq!(names(&home), [""; 0], "certificates of the key before are of no use");
    let pem = certificate(&authority, &key, Some("stock"));
    let said = home
        .write()
        .unwrap()
        .save_database(&alice, &key, "stock", &pem)
        .unwrap_err();
    assert!(matches!(said, ProfileError::Overtaken { .. }), "{said}");
}

#[test]
fn a_directory_that_others_can_change_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o770, 0o702] {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let said = Home::at(dir.path()).unwrap_err().to_string();
        assert!(
            said.contains("chmod 700") && said.contains(&format!("{mode:04o}")),
            "{said}"
        );
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(Home::at(dir.path()).is_ok());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let (_dir, home) = home();
    let alice = profile("one:443", "alice");
    log_in(&home, &alice);
    let key = home.key_file(&alice).unwrap();
    for mode in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = home.credentials(&alice).unwrap_err().to_string();
        assert!(
            said.contains(&format!("{mode:04o}")) && said.contains("log in again") && said.contains("chmod 600"),
            "{said}"
        );
    }
    let known = home.host_ca(&alice).unwrap();
    assert_eq!(
        known.as_deref(),
        Some("the authority"),
        "the next login knows whom to believe"
    );
    log_in(&home, &alice);
    assert!(
        home.credentials(&alice).unwrap().is_some(),
        "a login puts another in its place"
    );
}

#[test]
fn a_login_is_not_written_through_a_symbolic_link() {
    let (dir, home) = home();
    let alice = profile("one:443", "alice");
    log_in(&home, &alice);
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    for path in [home.key_file(&alice).unwrap(), home.certificate_file(&alice).unwrap()] {
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let key = PrivateKey::generate().unwrap();
        let pem = certificate(&authority(), &key, None);
        let said = home.write().unwrap().save_login(&alice, &key, &pem, &host_only());
        assert!(said.unwrap_err().to_string().contains("symbolic link"));
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
}

#[test]
fn names_that_a_cluster_chose_do_not_lead_out_of_the_directory() {
    let (_dir, home) = home();
    let mut alice = profile("one:443", "alice");
    alice.cluster = "..".to_owned();
    assert!(home.database_file(&alice, "orders").is_err());
    assert!(home.profile("../../etc/passwd").is_err());
    assert!(home.profile("one\n[other]").is_err());
    alice.proxy = "/etc".to_owned();
    assert!(home.key_file(&alice).is_err());
    let colons = profile("[::1]:443", "a:b%3Ac");
    let path = home.key_file(&colons).unwrap();
    assert!(
        path.ends_with("keys/[++1]+443/a%3Ab%253Ac.key"),
        "libpq splits at a colon: {path:?}"
    );
}

#[test]
fn logins_and_reads_at_the_same_time_never_show_a_key_with_the_certificate_of_another() {
    let (_dir, home) = home();
    let alice = profile("one:443", "alice");
    log_in(&home, &alice);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..10).for_each(|_| drop(log_in(&home, &alice))));
        }
        for _ in 0..60 {
            assert!(home.credentials(&alice).unwrap().is_some());
            assert_eq!(home.current().unwrap().as_ref(), Some(&alice));
        }
    });
    let left: Vec<_> = std::fs::read_dir(&home.dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left.len(), 4, "lock, keys, the profile and the current one: {left:?}");
}

#[test]
fn psql_believes_the_machine_s_authorities_where_they_vouch_for_the_proxy_and_nobody_else_does() {
    let (_directory, home) = home();
    let profile = profile("gate.example.com:443", "alice");
    let key = PrivateKey::generate().unwrap();
    let pem = certificate(&authority(), &key, None);
    let save = |authorities: &Authorities<'_>| {
        home.write()
            .unwrap()
            .save_login(&profile, &key, &pem, authorities)
            .unwrap();
        let roots = home.roots_file(&profile).unwrap();
        let kept = home.credentials(&profile).unwrap().unwrap();
        (std::fs::read_to_string(roots).unwrap(), kept.host_ca)
    };
    let with_machine = Authorities {
        of_machine: Some(", the machine's".to_owned()),
        ..host_only()
    };
    assert_eq!(
        save(&with_machine),
        ("the authority, the machine's".to_owned(), "the authority".to_owned())
    );
    assert_eq!(
        save(&host_only()),
        ("the authority".to_owned(), "the authority".to_owned())
    );
    save(&with_machine);
    home.write().unwrap().remove_login(&profile).unwrap();
    assert!(!home.ca_file(&profile).unwrap().parent().unwrap().exists());
}

#[test]
fn a_logout_of_everything_leaves_no_key_of_a_user_whom_no_profile_names_any_more() {
    let (_dir, home) = home();
    let (dev, alice) = (profile("[::1]:443", "d%e:v"), profile("[::1]:443", "alice"));
    let key = log_in(&home, &dev);
    let pem = certificate(&authority(), &key, Some("demo"));
    home.write().unwrap().save_database(&dev, &key, "demo", &pem).unwrap();
    log_in(&home, &alice);
    let logins = home.logins().unwrap();
    let users: Vec<&str> = logins.iter().map(|login| login.user.as_str()).collect();
    assert_eq!(users, ["alice", "d%e:v"]);
    assert_eq!(
        (logins[1].proxy.as_str(), logins[1].cluster.as_str()),
        ("[::1]:443", "gate")
    );
    assert_eq!(home.database_names(&logins[1]).unwrap(), ["demo"]);

    // One after the other: the profile is gone with alice, what dev has is found all the same.
    home.write().unwrap().remove_login(&alice).unwrap();
    let left = home.logins().unwrap();
    assert_eq!(left.len(), 1);
    home.write().unwrap().remove_login(&left[0]).unwrap();
    assert!(!home.dir.join("keys/[++1]+443").exists());

    log_in(&home, &dev);
    log_in(&home, &alice);
    std::fs::write(home.dir.join("[::1]:443.json"), "not a profile").unwrap();
    assert_eq!(home.logins().unwrap().len(), 2, "a damaged profile hides nobody");
    home.write().unwrap().remove_all().unwrap();
    assert_eq!(names_in(&home.dir).unwrap(), ["lock"]);
}
