//! What every store must do, written against the trait, and run for each of them; then what only the SQLite file must do.

use super::sqlite::SqliteStore;
use super::{Change, MAX_KEY_BYTES, MAX_VALUE_BYTES, Store, StoreError, WatchError};
use crate::model::clock::HeldClock;
use crate::model::{SystemClock, Timestamp};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

async fn a_put_is_read_back(store: &dyn Store) {
    assert_eq!(store.get("/a").await.unwrap(), None);
    let first = store.put("/a", b"1".to_vec(), None).await.unwrap();
    let second = store.put("/a", b"2".to_vec(), None).await.unwrap();
    assert!(second > first, "revisions grow");
    let item = store.get("/a").await.unwrap().unwrap();
    assert_eq!((item.value.as_slice(), item.revision), (b"2".as_slice(), second));
    assert!(store.delete("/a").await.unwrap());
    assert!(!store.delete("/a").await.unwrap());
    assert_eq!(store.get("/a").await.unwrap(), None);
}

async fn create_and_compare_and_swap_refuse_what_changed(store: &dyn Store) {
    let first = store.create("/c", b"1".to_vec(), None).await.unwrap();
    let again = store.create("/c", b"2".to_vec(), None).await;
    assert_eq!(
        again,
        Err(StoreError::AlreadyExists {
            key: "/c".into(),
            revision: first
        })
    );
    let second = store.compare_and_swap("/c", first, b"3".to_vec(), None).await.unwrap();
    let stale = store.compare_and_swap("/c", first, b"4".to_vec(), None).await;
    assert_eq!(
        stale,
        Err(StoreError::Conflict {
            key: "/c".into(),
            expected: first,
            found: Some(second)
        })
    );
    let absent = store.compare_and_swap("/none", 1, Vec::new(), None).await;
    assert!(matches!(absent, Err(StoreError::Conflict { found: None, .. })));
    assert_eq!(store.get("/c").await.unwrap().unwrap().value, b"3");
}

async fn a_range_is_ordered_and_keeps_to_its_prefix(store: &dyn Store) {
    for key in ["/r/b", "/r/a", "/r/é", "/r2", "/q", "/r/a/x"] {
        store.put(key, key.as_bytes().to_vec(), None).await.unwrap();
    }
    let keys = |items: Vec<super::Item>| items.into_iter().map(|i| i.key).collect::<Vec<_>>();
    assert_eq!(
        keys(store.range("/r/", 10).await.unwrap()),
        ["/r/a", "/r/a/x", "/r/b", "/r/é"]
    );
    assert_eq!(keys(store.range("/r/", 2).await.unwrap()), ["/r/a", "/r/a/x"]);
    assert!(store.range("/nothing", 10).await.unwrap().is_empty());
}

async fn what_breaks_a_limit_is_refused(store: &dyn Store) {
    for key in [
        String::new(),
        "k".repeat(MAX_KEY_BYTES + 1),
        "/a\nb".into(),
        "/a\u{10FFFF}".into(),
    ] {
        assert!(matches!(
            store.put(&key, Vec::new(), None).await,
            Err(StoreError::BadKey { .. })
        ));
        assert!(matches!(store.get(&key).await, Err(StoreError::BadKey { .. })));
    }
    let large = store.put("/large", vec![0; MAX_VALUE_BYTES + 1], None).await;
    assert!(matches!(large, Err(StoreError::ValueTooLarge { .. })));
    store.put("/large", vec![0; MAX_VALUE_BYTES], None).await.unwrap();
    assert!(matches!(
        store.range("/", usize::MAX).await,
        Err(StoreError::RangeTooLarge { .. })
    ));
}

async fn a_watch_sees_its_changes_in_order(store: &dyn Store) {
    let mut watch = store.watch("/w/").await.unwrap();
    let put = store.put("/w/a", b"1".to_vec(), None).await.unwrap();
    store.put("/other", Vec::new(), None).await.unwrap();
    store.delete("/w/a").await.unwrap();
    assert!(!store.delete("/w/none").await.unwrap());
    let next = store.put("/w/b", b"2".to_vec(), None).await.unwrap();
    match watch.next().await.unwrap() {
        Change::Put(item) => assert_eq!((item.key.as_str(), item.revision), ("/w/a", put)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(watch.next().await.unwrap(), Change::Deleted { key, .. } if &*key == "/w/a"));
    assert_eq!(watch.next().await.unwrap().revision(), next);
}

async fn a_slow_watcher_is_told_and_goes_on(store: &dyn Store) {
    let mut watch = store.watch("/slow/").await.unwrap();
    let puts = (0..2000).map(|n| store.put("/slow/x", vec![u8::try_from(n % 256).unwrap()], None));
    futures::future::try_join_all(puts).await.unwrap();
    assert!(matches!(watch.next().await, Err(WatchError::Lagged { missed }) if missed > 0));
    assert!(matches!(watch.next().await, Ok(Change::Put(_))));
}

async fn what_expires_is_gone(store: &dyn Store, clock: &HeldClock) {
    let soon = START + Duration::from_secs(10);
    let mut watch = store.watch("/e/").await.unwrap();
    store.put("/e/short", b"s".to_vec(), Some(soon)).await.unwrap();
    store.put("/e/long", b"l".to_vec(), None).await.unwrap();
    let item = store.get("/e/short").await.unwrap().unwrap();
    assert_eq!(item.expires, Some(soon));
    clock.move_to(soon);
    assert_eq!(store.get("/e/short").await.unwrap(), None);
    assert_eq!(store.range("/e/", 10).await.unwrap().len(), 1);
    let swapped = store
        .compare_and_swap("/e/short", item.revision, Vec::new(), None)
        .await;
    assert!(matches!(swapped, Err(StoreError::Conflict { found: None, .. })));
    assert!(!store.delete("/e/short").await.unwrap());
    store.create("/e/short", b"new".to_vec(), None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().key(), "/e/short");
    assert_eq!(watch.next().await.unwrap().key(), "/e/long");
    let expired = watch.next().await.unwrap();
    assert!(
        matches!(expired, Change::Deleted { key, .. } if &*key == "/e/short"),
        "watchers hear of an expiry"
    );
    assert!(matches!(watch.next().await.unwrap(), Change::Put(_)));
}

async fn a_thousand_puts_at_once_have_a_thousand_revisions(store: &dyn Store) {
    let keys: Vec<_> = (0..1000).map(|n| format!("/many/{n:04}")).collect();
    let puts = keys.iter().map(|key| store.put(key, key.clone().into_bytes(), None));
    let mut revisions = futures::future::try_join_all(puts).await.unwrap();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 1000);
    let items = store.range("/many/", 2000).await.unwrap();
    assert_eq!(items.len(), 1000);
    assert!(items.iter().all(|item| item.key.as_bytes() == item.value));
}

async fn one_conflict_does_not_fail_the_others(store: &dyn Store) {
    store.create("/one", Vec::new(), None).await.unwrap();
    let many = (0..50).map(|n| {
        let key = if n % 2 == 0 {
            "/one".to_owned()
        } else {
            format!("/one/{n}")
        };
        async move { store.create(&key, Vec::new(), None).await.is_ok() }
    });
    let outcomes = futures::future::join_all(many).await;
    assert!(outcomes.iter().enumerate().all(|(n, ok)| *ok == (n % 2 == 1)));
}

async fn of_swaps_that_race_one_wins(store: &dyn Store) {
    let start = store.put("/race", Vec::new(), None).await.unwrap();
    let swaps = (0..20u8).map(|n| store.compare_and_swap("/race", start, vec![n], None));
    let outcomes = futures::future::join_all(swaps).await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
}

#[tokio::test]
async fn the_sqlite_store_keeps_every_promise_of_the_trait() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HeldClock::at(START);
    let store = SqliteStore::open(&dir.path().join("state.sqlite"), clock.clone()).unwrap();
    let store: &dyn Store = &*store;
    a_put_is_read_back(store).await;
    create_and_compare_and_swap_refuse_what_changed(store).await;
    a_range_is_ordered_and_keeps_to_its_prefix(store).await;
    what_breaks_a_limit_is_refused(store).await;
    a_watch_sees_its_changes_in_order(store).await;
    a_slow_watcher_is_told_and_goes_on(store).await;
    a_thousand_puts_at_once_have_a_thousand_revisions(store).await;
    one_conflict_does_not_fail_the_others(store).await;
    of_swaps_that_race_one_wins(store).await;
    what_expires_is_gone(store, &clock).await;
}

#[tokio::test]
async fn an_idle_store_sweeps_what_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HeldClock::at(START);
    let store = SqliteStore::open(&dir.path().join("state.sqlite"), clock.clone()).unwrap();
    let later = START + Duration::from_secs(1);
    store.put("/x", Vec::new(), Some(later)).await.unwrap();
    let mut watch = store.watch("/").await.unwrap();
    clock.move_to(later);
    assert!(matches!(watch.next().await.unwrap(), Change::Deleted { .. }));
}

#[tokio::test]
async fn acknowledged_writes_and_revisions_survive_a_drop_and_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let store = SqliteStore::open(&path, SystemClock::shared()).unwrap();
    let revision = store.put("/kept", b"v".to_vec(), None).await.unwrap();
    // The files as a crash would leave them: nothing was closed.
    let crashed = tempfile::tempdir().unwrap();
    for name in ["state.sqlite", "state.sqlite-wal"] {
        std::fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
    }
    drop(store);
    for path in [path, crashed.path().join("state.sqlite")] {
        let store = SqliteStore::open(&path, SystemClock::shared()).unwrap();
        let item = store.get("/kept").await.unwrap().unwrap();
        assert_eq!((item.value.as_slice(), item.revision), (b"v".as_slice(), revision));
        assert!(store.put("/next", Vec::new(), None).await.unwrap() > revision);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_watch_of_a_store_that_is_gone_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("state.sqlite"), SystemClock::shared()).unwrap();
    let mut watch = store.watch("/").await.unwrap();
    drop(store);
    assert_eq!(watch.next().await, Err(WatchError::Closed));
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_its_path_and_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none/state.sqlite");
    let refused = SqliteStore::open(&missing, SystemClock::shared()).err().unwrap();
    assert!(matches!(refused, StoreError::Open { .. }));
    assert!(refused.to_string().contains(&missing.display().to_string()));
    assert!(refused.to_string().contains("check that the directory exists"));

    let rubbish = dir.path().join("rubbish.sqlite");
    std::fs::write(&rubbish, "this is not a database".repeat(500)).unwrap();
    let refused = SqliteStore::open(&rubbish, SystemClock::shared()).err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("rubbish.sqlite") && refused.to_string().contains("restore a backup"));
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    drop(SqliteStore::open(&path, SystemClock::shared()).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let refused = SqliteStore::open(&path, SystemClock::shared()).err().unwrap();
    assert!(
        matches!(
            refused,
            StoreError::NewerSchema {
                found: 99,
                known: 1,
                ..
            }
        ),
        "{refused}"
    );
    let _shared: Arc<dyn Store> = SqliteStore::open(&dir.path().join("b"), SystemClock::shared()).unwrap();
}
