//! What the room promises as a whole: every kind of certificate against every check, and against OpenSSL.

mod chains;
mod openssl;
mod requests;
mod round_trips;

use super::*;
use crate::model::{
    ClusterName, DbName, DbUser, NodeId, NodeKind, NodeName, PersonName, RoleName, Route, ServiceName, Timestamp,
    Traits,
};
use rustls_pki_types::CertificateDer;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// The four CAs of a cluster and what others know of them.
struct Cluster {
    authorities: Vec<CertificateAuthority>,
    anchors: TrustAnchors,
}

impl Cluster {
    fn named(name: &str) -> Self {
        let name = ClusterName::new(name).unwrap();
        let authorities: Vec<_> = CaKind::ALL
            .into_iter()
            .map(|kind| CertificateAuthority::generate(kind, &name, NOW).unwrap())
            .collect();
        let anchors = TrustAnchors::from_authorities(&authorities);
        Self { authorities, anchors }
    }

    fn ca(&self, kind: CaKind) -> &CertificateAuthority {
        self.authorities.iter().find(|ca| ca.kind() == kind).unwrap()
    }

    /// One certificate of the kind, valid for an hour.
    fn leaf(&self, kind: CaKind) -> CertificateDer<'static> {
        let (ca, key, end) = (self.ca(kind), key(), NOW + HOUR);
        match kind {
            CaKind::User => ca.issue_person(&person(), &key, end, NOW),
            CaKind::Host => ca.issue_host(&host(), &key, end, NOW),
            CaKind::Db => ca.issue_db_server(&db_server(), &key, end, NOW),
            CaKind::DbClient => ca.issue_db_client(&db_client(), &key, end, NOW),
        }
        .unwrap()
    }
}

fn key() -> PublicKey {
    PrivateKey::generate().unwrap().public_key()
}

fn person() -> PersonProfile {
    PersonProfile {
        name: PersonName::new("alice").unwrap(),
        roles: vec![
            RoleName::new("access").unwrap(),
            RoleName::new("team:orders@dev").unwrap(),
        ],
        traits: Traits::from([("db_users".to_owned(), vec!["*".to_owned()])]),
        mfa: true,
        route: Some(Route {
            service: ServiceName::new("example").unwrap(),
            db_user: Some(DbUser::new("postgres").unwrap()),
            db_name: Some(DbName::new("orders").unwrap()),
        }),
        pinned_ip: Some("2001:db8::7".parse().unwrap()),
    }
}

fn host() -> HostProfile {
    HostProfile {
        node_id: NodeId::from_random([7; 16]),
        node_name: NodeName::new("db1.example.com").unwrap(),
        kinds: vec![NodeKind::Proxy, NodeKind::Auth],
        names: vec![
            HostName::new("proxy.example.com").unwrap(),
            HostName::new("10.0.0.7").unwrap(),
        ],
    }
}

fn db_server() -> DbServerProfile {
    DbServerProfile {
        names: vec![
            HostName::new("pg.example.com").unwrap(),
            HostName::new("10.0.0.8").unwrap(),
            HostName::new("*.pg.example.com").unwrap(),
        ],
    }
}

fn db_client() -> DbClientProfile {
    DbClientProfile {
        db_user: DbUser::new("postgres").unwrap(),
        principal: PersonName::new("alice").unwrap(),
    }
}
