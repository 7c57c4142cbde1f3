//! What all simulated worlds have in common, made once per process: authorities, the proxy's identity, everybody's certificates.

use super::rules::PEOPLE;
use crate::actors::address::Reply;
use crate::actors::ca::{CaError, IssueDbClient, Issued};
use crate::actors::host::{Behavior, Ctx, Handle};
use crate::actors::identity::{Identity, IdentityStock, InUse};
use crate::model::clock::HeldClock;
use crate::model::{
    ClusterName, NodeId, NodeKind, NodeName, PersonName, Route, ServiceName, SharedClock, Timestamp, Traits,
};
use crate::net::web_certificates::WebCertificates;
use crate::pki::{
    CaKind, CertificateAuthority, DbClientProfile, HostName, HostProfile, PersonProfile, PrivateKey, PublicKey,
    TrustAnchors,
};
use rustls_pki_types::CertificateDer;
use std::sync::OnceLock;
use std::time::Duration;

pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

pub struct Cluster {
    pub name: ClusterName,
    pub anchors: TrustAnchors,
    pub identity: IdentityStock,
    db_client: CertificateAuthority,
    people: Vec<(&'static str, Vec<CertificateDer<'static>>)>,
}

impl Cluster {
    pub fn of_the_tests() -> &'static Self {
        static MADE: OnceLock<Cluster> = OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let name = ClusterName::new("gate.example").unwrap();
        let authority = |kind| CertificateAuthority::generate(kind, &name, NOW).unwrap();
        let (user, host, db_client) = (
            authority(CaKind::User),
            authority(CaKind::Host),
            authority(CaKind::DbClient),
        );
        let authorities = [user, host, authority(CaKind::Db), db_client];
        let anchors = TrustAnchors::from_authorities(&authorities);
        let [user, host, _, db_client] = authorities;
        let person = |name: &'static str| {
            let profile = PersonProfile {
                name: PersonName::new(name).unwrap(),
                roles: Vec::new(),
                traits: Traits::new(),
                mfa: false,
                route: Some(Route {
                    service: ServiceName::new("orders").unwrap(),
                    db_user: None,
                    db_name: None,
                }),
                pinned_ip: None,
            };
            let key = PrivateKey::generate().unwrap().public_key();
            (name, vec![user.issue_person(&profile, &key, NOW + HOUR, NOW).unwrap()])
        };
        Self {
            people: PEOPLE.map(person).into(),
            identity: identity(&host, &anchors),
            name,
            anchors,
            db_client,
        }
    }

    pub fn chain_of(&self, person: &str) -> Vec<CertificateDer<'static>> {
        let known = self.people.iter().find(|(name, _)| *name == person);
        known.map(|(_, chain)| chain.clone()).unwrap()
    }
}

fn identity(authority: &CertificateAuthority, anchors: &TrustAnchors) -> IdentityStock {
    let key = PrivateKey::generate().unwrap();
    let profile = HostProfile {
        node_id: NodeId::from_random([0; 16]),
        node_name: NodeName::new("node-0").unwrap(),
        kinds: vec![NodeKind::Proxy],
        names: vec![HostName::new("proxy.example").unwrap()],
    };
    let leaf = authority
        .issue_host(&profile, &key.public_key(), NOW + HOUR, NOW)
        .unwrap();
    let identity = Identity::new(leaf, key, anchors.clone(), NOW).unwrap();
    let clock: SharedClock = HeldClock::at(NOW);
    IdentityStock::new(InUse::new(identity, &WebCertificates::default(), &clock).unwrap())
}

/// Auth, as far as an agent needs it here: it signs what it is asked for.
pub struct Authority {
    pub cluster: &'static Cluster,
}

impl Behavior for Authority {
    const MAILBOX: usize = 64;
}

impl Handle<IssueDbClient> for Authority {
    fn handle(&mut self, ask: IssueDbClient, _: &mut Ctx<'_, Self>) -> Reply<Result<Issued, CaError>> {
        let profile = DbClientProfile {
            db_user: ask.db_user,
            principal: PersonName::new("somebody").unwrap(),
        };
        let (key, not_after) = (PublicKey::from_csr(&ask.csr).unwrap(), NOW + HOUR);
        let certificate = self.cluster.db_client.issue_db_client(&profile, &key, not_after, NOW);
        Reply::Now(Ok(Issued {
            certificate: certificate.unwrap().to_vec(),
            not_after,
        }))
    }
}
