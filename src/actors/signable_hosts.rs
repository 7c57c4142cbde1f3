//! For which names an agent may have a certificate of PostgreSQL signed.
//!
//! Denied unless each name is one that this very agent announces for the service, and no other agent that lives announces it for
//! another service: an agent that is in somebody else's hands must not get what poses as another database.

use super::ca::CaError;
use super::inventory::NodeRecord;
use crate::model::{NodeId, ServiceName};

/// A certificate of more names than this is for no single PostgreSQL.
const HOSTS_MAX: usize = 8;

pub struct SignableHosts<'a> {
    /// Those that live.
    pub nodes: &'a [NodeRecord],
    pub agent: NodeId,
    pub service: &'a ServiceName,
}

impl SignableHosts<'_> {
    /// # Errors
    /// Which name is refused and why; `AuthAway` while the agent has not been heard yet.
    pub fn check(&self, hosts: &[String]) -> Result<(), CaError> {
        let service = self.service;
        let own = self
            .nodes
            .iter()
            .find(|record| record.node == self.agent)
            .ok_or_else(|| CaError::AuthAway("this agent has not been heard yet".to_owned()))?;
        let Some(database) = own
            .report
            .databases
            .iter()
            .find(|database| database.service == *service)
        else {
            // An agent says so with its next heartbeat when it has just begun to serve it.
            return Err(CaError::AuthAway(format!(
                "this agent is not known to serve database service {service}"
            )));
        };
        if hosts.is_empty() || hosts.len() > HOSTS_MAX {
            return Err(CaError::Declined(format!(
                "a certificate of PostgreSQL has between 1 and {HOSTS_MAX} names"
            )));
        }
        for host in hosts {
            if !database.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
                return Err(CaError::Declined(format!(
                    "{host:?} is neither the host of the uri nor the tls.server_name of database service {service}; a \
                     certificate for other names is made with: postern ctl auth sign --format=db --host={host}"
                )));
            }
            if let Some((node, other)) = self.claimed_elsewhere(host) {
                return Err(CaError::Declined(format!(
                    "{host:?} is announced by agent {node} for database service {other}, too; give each PostgreSQL a \
                     tls.server_name of its own"
                )));
            }
        }
        Ok(())
    }

    fn claimed_elsewhere(&self, host: &str) -> Option<(String, &ServiceName)> {
        self.nodes
            .iter()
            .filter(|record| record.node != self.agent)
            .find_map(|record| {
                let mut databases = record.report.databases.iter();
                let claim = databases.find(|database| {
                    database.service != *self.service
                        && database.hosts.iter().any(|other| other.eq_ignore_ascii_case(host))
                })?;
                Some((record.name.to_string(), &claim.service))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Labels, NodeKind, Timestamp};
    use crate::protocol::tunnel::{DatabaseRecord, NodeReport};

    fn agent(number: u8, service: &str, hosts: &[&str]) -> NodeRecord {
        NodeRecord {
            node: NodeId::from_random([number; 16]),
            name: format!("agent-{number}").parse().expect("valid"),
            kinds: vec![NodeKind::Db],
            report: NodeReport {
                version: String::new(),
                instance: 1,
                started: Timestamp::from_secs(0),
                databases: vec![DatabaseRecord {
                    service: service.parse().expect("valid"),
                    description: String::new(),
                    labels: Labels::default(),
                    uri: String::new(),
                    hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
                }],
                health: Vec::new(),
                proxy_addresses: Vec::new(),
            },
        }
    }

    fn check(nodes: &[NodeRecord], service: &str, hosts: &[&str]) -> Result<(), CaError> {
        let signable = SignableHosts {
            nodes,
            agent: NodeId::from_random([1; 16]),
            service: &service.parse().expect("valid"),
        };
        signable.check(&hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_agent_gets_certificates_for_the_hosts_of_its_own_databases_only() {
        let nodes = [
            agent(1, "orders", &["10.0.0.1", "orders.internal"]),
            agent(2, "orders", &["orders.internal"]),
            agent(3, "payroll", &["payroll.internal", "10.0.0.1"]),
        ];
        assert_eq!(
            check(&nodes, "orders", &["orders.internal"]),
            Ok(()),
            "the same service twice is one database"
        );
        let refused = |hosts: &[&str]| match check(&nodes, "orders", hosts) {
            Err(CaError::Declined(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(&["payroll.internal"]).contains("neither the host of the uri"));
        assert!(refused(&["orders.internal", "payroll.internal"]).contains("neither the host of the uri"));
        assert!(refused(&["10.0.0.1"]).contains("agent-3 for database service payroll, too"));
        assert!(refused(&["*.internal"]).contains("neither"));
        assert!(refused(&[]).contains("between 1 and 8"));
        assert!(matches!(
            check(&nodes, "payroll", &["payroll.internal"]),
            Err(CaError::AuthAway(_))
        ));
        assert!(matches!(
            check(&nodes[1..], "orders", &["orders.internal"]),
            Err(CaError::AuthAway(_))
        ));
    }
}
