//! Locks as documents, and the index over them.

use super::*;

fn lock(spec: &str) -> Result<Lock, ResourceError> {
    Lock::parse_yaml(&format!(
        "kind: lock\nversion: v2\nmetadata: {{name: l}}\nspec: {{{spec}}}\n"
    ))
}

#[test]
fn what_is_wrong_in_a_lock_is_said_with_its_place() {
    for (spec, expected) in [
        ("message: x", "spec has no \"target\"; add it"),
        ("target: {}", "spec.target must be one target (user, role or node"),
        ("target: {user: a, role: b}", "but is a mapping with 2 keys"),
        (
            "target: {mfa_device: x}",
            "lock \"l\": lock target \"mfa_device\" is not enforced by this version of Postern",
        ),
        ("target: {login: root}", "lock target \"login\" is not enforced"),
        (
            "target: {usr: x}",
            "unknown key \"usr\" in spec.target; did you mean \"user\"?",
        ),
        (
            "target: {user: 'a b'}",
            "spec.target.user: a user name \"a b\" must not contain ' '",
        ),
        (
            "target: {user: a}, expires: tomorrow",
            "spec.expires \"tomorrow\": it is not a time; write RFC 3339",
        ),
        ("target: {user: a}, until: x", "unknown key \"until\" in spec"),
    ] {
        let error = lock(spec).expect_err(spec).to_string();
        assert!(error.contains(expected), "{spec}\n gives {error}\n not {expected}");
    }
    let version = Lock::parse_yaml("kind: lock\nversion: v1\nmetadata: {name: l}\nspec: {}\n").expect_err("v1");
    assert!(
        version
            .to_string()
            .contains("version \"v1\" of kind lock is not known; known are v2")
    );
}

#[test]
fn a_lock_that_is_replaced_or_removed_leaves_nothing_behind() {
    let mut locks = Locks::default();
    let (alice, bob) = (
        PersonName::new("alice").expect("a name"),
        PersonName::new("bob").expect("a name"),
    );
    let name = LockName::new("l").expect("a name");
    assert!(
        locks
            .insert(Lock::new(name.clone(), LockTarget::User(alice.clone())))
            .is_none()
    );
    assert!(
        locks
            .insert(Lock::new(name.clone(), LockTarget::User(bob.clone())))
            .is_some()
    );
    assert_eq!(
        (
            locks.about(&alice, &[], &[]).count(),
            locks.about(&bob, &[], &[]).count()
        ),
        (0, 1)
    );
    assert!(locks.remove(&name).is_some());
    assert_eq!(locks, Locks::default());
}

#[test]
fn a_message_that_would_move_the_cursor_of_whoever_reads_it_is_refused() {
    let lock = |message: &str| {
        format!(
            "{{kind: lock, version: v2, metadata: {{name: a}}, spec: {{target: {{user: alice}}, message: {message}}}}}"
        )
    };
    assert!(crate::policy::parse_resources(&lock("under investigation")).is_ok());
    for bad in ["\"red\\e[31m\"", "\"two\\nlines\""] {
        let error = crate::policy::parse_resources(&lock(bad)).unwrap_err().to_string();
        assert!(error.contains("without control characters"), "{error}");
    }
}
