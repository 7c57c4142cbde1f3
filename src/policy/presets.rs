//! The roles that a new cluster begins with.

use super::error::ResourceError;
use super::role::Role;

/// Every database; as which users and to which names is said by the person's traits.
const ACCESS: &str = "\
kind: role
version: v7
metadata:
  name: access
  description: Access to every database, as the users and to the names of the person's traits
spec:
  allow:
    db_labels:
      '*': '*'
    db_users: ['{{internal.db_users}}']
    db_names: ['{{internal.db_names}}']
  options:
    max_session_ttl: 30h
";

const EDITOR: &str = "\
kind: role
version: v7
metadata:
  name: editor
  description: For those who administer the cluster; no access to databases
spec:
  allow:
    rules:
    - resources: [user, role, token, db, db_server, lock, cluster_auth_preference, cluster_networking_config, session_recording_config]
      verbs: [list, create, read, update, delete]
    - resources: [node]
      verbs: [list, read, delete]
    - resources: [cert_authority]
      verbs: [list, readnosecrets]
    - resources: [trace]
      verbs: [list, read]
  options:
    max_session_ttl: 30h
";

const AUDITOR: &str = "\
kind: role
version: v7
metadata:
  name: auditor
  description: For those who read the audit log; no access to databases
spec:
  allow:
    rules:
    - resources: [session, event, trace]
      verbs: [list, read]
    - resources: [db_server, node, session_tracker, cluster_alert, instance]
      verbs: [list, read]
  options:
    max_session_ttl: 30h
";

/// The preset roles as documents.
pub const PRESETS: [&str; 3] = [ACCESS, EDITOR, AUDITOR];

/// The preset roles: `access`, `editor`, `auditor`.
///
/// # Errors
/// Never for the texts above, which a test reads; the signature spares a panic.
pub fn presets() -> Result<Vec<Role>, ResourceError> {
    PRESETS.iter().map(|text| Role::parse_yaml(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_access_editor_and_auditor_and_only_access_reaches_databases() {
        let roles = presets().expect("they parse");
        let names: Vec<_> = roles.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["access", "editor", "auditor"]);
        assert!(roles[0].allowed_labels().is_everything());
        assert!(
            roles
                .iter()
                .all(|r| r.options.max_session_ttl == Some(std::time::Duration::from_secs(30 * 3600)))
        );
        assert!(
            roles[1..]
                .iter()
                .all(|r| r.allowed_labels().0.is_empty() && r.allow.db_users.0.is_empty())
        );
    }

    #[test]
    fn the_roles_of_the_config_folder_are_read() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/roles");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).expect("the folder") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("a file");
            let roles = crate::policy::parse_resources(&text);
            read += roles
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                .len();
        }
        assert!(read >= 3, "{read} roles");
    }
}
