//! Databases that are registered as resources: which of them this agent serves, and how.

use super::Database;
use super::keeper::Definition;
use crate::model::ServiceName;
use crate::net::upstream_tls::UpstreamTrust;
use crate::pki::pem::certificates_from_pem;
use crate::policy::{DatabaseResource, DatabaseTlsMode, ResourceMatcher};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Databases of the cluster that one agent serves: more would not fit into its announcement.
const REGISTERED_MAX: usize = 1024;

/// What of the cluster's databases this agent takes on.
#[derive(Debug, Default)]
pub struct Chosen {
    pub definitions: BTreeMap<ServiceName, Arc<Definition>>,
    /// Those that match and are not served, each with the reason.
    pub passed_over: BTreeMap<ServiceName, String>,
}

/// Chooses the databases that one of `matchers` matches. One of the agent's own file wins over a registered one of its name.
pub fn choose<'a>(
    registered: impl Iterator<Item = &'a DatabaseResource>,
    matchers: &[ResourceMatcher],
    configured: impl Fn(&ServiceName) -> bool,
    db_authorities: &[CertificateDer<'static>],
) -> Chosen {
    let mut chosen = Chosen::default();
    for resource in registered {
        if !matchers.iter().any(|matcher| matcher.matches(&resource.labels)) {
            continue;
        }
        let name = resource.name.clone();
        let why = if configured(&name) {
            "a database of this name stands in the agent's configuration file, which wins".to_owned()
        } else if chosen.definitions.len() >= REGISTERED_MAX {
            format!("the agent serves {REGISTERED_MAX} registered databases already, its limit; start another agent")
        } else {
            match define(resource, db_authorities) {
                Ok(definition) => {
                    chosen.definitions.insert(name, Arc::new(definition));
                    continue;
                }
                Err(why) => why,
            }
        };
        chosen.passed_over.insert(name, why);
    }
    chosen
}

fn define(resource: &DatabaseResource, db_authorities: &[CertificateDer<'static>]) -> Result<Definition, String> {
    if resource.endpoint.is_link_local() {
        return Err(format!(
            "{} is a link-local address, where clouds give machines their credentials; register the database at another one, or \
             put it into the agent's configuration file",
            resource.endpoint
        ));
    }
    let authorities = match (resource.tls.mode, &resource.tls.ca_cert) {
        (DatabaseTlsMode::Insecure, _) => Vec::new(),
        (_, None) => db_authorities.to_vec(),
        (_, Some(pem)) => certificates_from_pem(pem.as_bytes(), "tls.ca_cert").map_err(|error| error.to_string())?,
    };
    let named = resource.tls.server_name.clone();
    let trust = UpstreamTrust {
        mode: resource.tls.mode,
        server_name: named.unwrap_or_else(|| resource.endpoint.host.clone()),
        authorities,
    };
    Ok(Definition {
        database: Database {
            service: resource.name.clone(),
            description: resource.description.clone().unwrap_or_default(),
            labels: resource.labels.clone(),
            endpoint: resource.endpoint.clone(),
            trust: Arc::new(trust),
        },
        dynamic_labels: Vec::new(),
        renews_certificate: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, more: &str) -> DatabaseResource {
        let text = format!(
            "kind: db\nversion: v3\nmetadata: {{name: {name}, labels: {{env: {name}}}}}\nspec: {{protocol: postgres, uri: db:5432{more}}}\n"
        );
        DatabaseResource::parse_yaml(&text).expect("valid")
    }

    #[test]
    fn what_matches_is_served_unless_the_file_has_the_name_or_its_authority_is_broken() {
        let broken = "-----BEGIN CERTIFICATE-----";
        let registered = [
            resource("dev", ", tls: {mode: insecure, server_name: db.internal}"),
            resource("test", ""),
            resource("prod", ""),
            resource("broken", &format!(", tls: {{ca_cert: \"{broken}\"}}")),
        ];
        let values = ["dev", "test", "broken"].map(str::to_owned).to_vec();
        let matchers = [ResourceMatcher::new(&BTreeMap::from([("env".to_owned(), values)])).expect("valid")];
        let chosen = choose(registered.iter(), &matchers, |name| name.as_str() == "test", &[]);
        let names: Vec<&str> = chosen.definitions.keys().map(ServiceName::as_str).collect();
        assert_eq!(names, ["dev"]);
        let trust = &chosen.definitions.values().next().expect("one").database.trust;
        assert_eq!(
            (trust.mode, trust.server_name.as_str()),
            (DatabaseTlsMode::Insecure, "db.internal")
        );
        let passed_over: Vec<&str> = chosen.passed_over.keys().map(ServiceName::as_str).collect();
        assert_eq!(passed_over, ["broken", "test"]);
        assert!(choose(registered.iter(), &[], |_| false, &[]).definitions.is_empty());
    }

    #[test]
    fn a_registered_database_does_not_lead_an_agent_to_its_machines_own_link() {
        let addresses = [
            "169.254.169.254:80",
            "'[fe80::1]:5432'",
            "'[::ffff:169.254.169.254]:80'",
        ];
        for address in addresses {
            let text = format!(
                "kind: db\nversion: v3\nmetadata: {{name: bait}}\nspec: {{protocol: postgres, uri: {address}, tls: {{mode: insecure}}}}\n"
            );
            let bait = DatabaseResource::parse_yaml(&text).expect("valid");
            let everything = BTreeMap::from([("*".to_owned(), vec!["*".to_owned()])]);
            let matchers = [ResourceMatcher::new(&everything).expect("valid")];
            let chosen = choose([&bait].into_iter(), &matchers, |_| false, &[]);
            assert!(chosen.definitions.is_empty(), "{address}");
            assert!(chosen.passed_over[&bait.name].contains("link-local"), "{address}");
        }
    }
}
