//! Which databases a person sees, and as whom they may be used there, for lists. It decides over no session: users and names are
//! put together from all roles that select the database, while `decide` asks for one role that allows all of a request.

use super::matching::selector;
use crate::model::{Labels, PersonName, Traits};
use crate::policy::expression::Facts;
use crate::policy::matchers::{NamePatterns, Section, WILDCARD};
use crate::policy::role::Role;
use crate::policy::snapshot::PolicySnapshot;
use std::collections::BTreeSet;

/// Names in order, templates expanded; `*` is any. What is denied is taken out of what is allowed as far as it is named there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visible {
    pub allowed_users: Vec<String>,
    pub denied_users: Vec<String>,
    pub allowed_names: Vec<String>,
    pub denied_names: Vec<String>,
}

/// What a person may use at a database with these labels; `None` where no role selects it, a role denies it, or there is no such
/// person. Locks are not looked at: they are on the person, not on what is seen.
pub fn visible(snapshot: &PolicySnapshot, person: &PersonName, labels: &Labels) -> Option<Visible> {
    let user = snapshot.users.get(person)?;
    let traits = &user.traits;
    let facts = Facts { labels, person, traits };
    if snapshot.roles_of(user).any(|role| is_denied(role, facts)) {
        return None;
    }
    let selecting: Vec<&Role> = snapshot.roles_of(user).filter(|role| selects(role, facts)).collect();
    if selecting.is_empty() {
        return None;
    }
    let allowed = |of: fn(&Role) -> &NamePatterns| names(selecting.iter().map(|role| of(role)), traits, Section::Allow);
    let denied = |of: fn(&Role) -> &NamePatterns| names(snapshot.roles_of(user).map(of), traits, Section::Deny);
    let (denied_users, denied_names) = (denied(|role| &role.deny.db_users), denied(|role| &role.deny.db_names));
    Some(Visible {
        allowed_users: without(allowed(|role| &role.allow.db_users), &denied_users),
        denied_users: denied_users.into_iter().collect(),
        allowed_names: without(allowed(|role| &role.allow.db_names), &denied_names),
        denied_names: denied_names.into_iter().collect(),
    })
}

fn selects(role: &Role, facts: Facts<'_>) -> bool {
    let labels = selector(role, Section::Allow)
        .is_none_or(|selector| selector.check(facts.labels, facts.traits, Section::Allow).is_ok());
    let expression = role.allow.db_labels_expression.as_ref();
    labels && expression.is_none_or(|expression| expression.holds(facts))
}

/// Any condition of `deny` on labels is enough.
fn is_denied(role: &Role, facts: Facts<'_>) -> bool {
    let labels = selector(role, Section::Deny)
        .is_some_and(|selector| selector.check(facts.labels, facts.traits, Section::Deny).is_ok());
    let expression = role.deny.db_labels_expression.as_ref();
    labels || expression.is_some_and(|expression| expression.holds(facts))
}

fn names<'a>(patterns: impl Iterator<Item = &'a NamePatterns>, traits: &Traits, section: Section) -> BTreeSet<String> {
    patterns.flat_map(|patterns| patterns.values(traits, section)).collect()
}

fn without(allowed: BTreeSet<String>, denied: &BTreeSet<String>) -> Vec<String> {
    if denied.contains(WILDCARD) {
        return Vec::new();
    }
    allowed.into_iter().filter(|name| !denied.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::policy::parse_resources;

    fn seen(yaml: &str, labels: &str) -> Option<Visible> {
        let mut snapshot = PolicySnapshot::empty(1, Timestamp::from_secs(0));
        for resource in parse_resources(yaml).expect("resources") {
            snapshot.add(resource).expect("once");
        }
        let labels = Labels::parse(labels).expect("labels");
        visible(&snapshot, &PersonName::new("alice").expect("a name"), &labels)
    }

    const ALICE: &str = "kind: user\nversion: v2\nmetadata: {name: alice}\nspec:\n  roles: [dev, prod, gone]\n  \
                         traits: {db_users: [app, root]}\n---\n";
    const DEV: &str = "kind: role\nversion: v7\nmetadata: {name: dev}\nspec:\n  allow:\n    db_labels: {env: dev}\n    \
                       db_users: ['{{internal.db_users}}', '*']\n    db_names: [orders, postgres]\n  deny:\n    \
                       db_users: [root]\n    db_names: [postgres]\n---\n";
    const PROD: &str = "kind: role\nversion: v7\nmetadata: {name: prod}\nspec:\n  allow:\n    db_labels: {env: [prod, secret]}\n    \
                        db_users: [reader]\n  deny:\n    db_labels: {tier: secret}\n";

    #[test]
    fn a_person_sees_what_a_role_selects_and_none_denies_with_names_in_place_of_templates() {
        let yaml = format!("{ALICE}{DEV}{PROD}");
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let dev = Visible {
            allowed_users: list(&["*", "app"]),
            denied_users: list(&["root"]),
            allowed_names: list(&["orders"]),
            denied_names: list(&["postgres"]),
        };
        assert_eq!(seen(&yaml, "env=dev"), Some(dev));
        let prod = seen(&yaml, "env=prod").expect("seen");
        assert_eq!((prod.allowed_users, prod.allowed_names), (list(&["reader"]), list(&[])));
        assert_eq!(seen(&yaml, "env=prod,tier=secret"), None, "denied by its labels");
        assert_eq!(seen(&yaml, "env=test"), None, "no role selects it");
        assert_eq!(seen(PROD, "env=prod"), None, "there is nobody of this name");
    }
}
