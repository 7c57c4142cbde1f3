//! What people ask of auth for themselves: a login, another certificate, who they are, and which databases they see.

use super::admin::AdminParts;
use super::people::{People, SignedIn};
use super::people_api::{Certificates, Login, Me, MyDatabase, MyDatabases, Renew, Route as AskedRoute};
use super::routes::{ASK_DEADLINE, Answer, Api, Failed, bad, csr, surely};
use crate::actors::accounts::{LogIn, LoginRefused};
use crate::actors::address::Origin;
use crate::actors::ca::{CaError, IssuePerson, Issued};
use crate::model::{DbName, DbUser, PersonName, Route, Secret, ServiceName};
use crate::pki::PublicKey;
use crate::pki::pem::certificates_to_pem;
use crate::policy::{Visible, visible};
use crate::protocol::tunnel::DatabaseRecord;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::time::Duration;

/// The reference's: a working day and the lunch.
const DEFAULT_TTL: Duration = Duration::from_secs(12 * 3600);

impl From<LoginRefused> for Failed {
    fn from(refused: LoginRefused) -> Self {
        let status = match refused {
            LoginRefused::Denied => StatusCode::UNAUTHORIZED,
            LoginRefused::TooMany => StatusCode::TOO_MANY_REQUESTS,
            LoginRefused::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, refused.to_string())
    }
}

fn not_issued(error: CaError) -> Failed {
    match error {
        CaError::Declined(why) => Failed(StatusCode::FORBIDDEN, why),
        CaError::AuthAway(why) | CaError::NotUnderstood(why) => Failed(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

pub(super) async fn log_in(State(people): State<People>, Json(ask): Json<Login>) -> Answer<Certificates> {
    surely(logged_in(people, ask)).await
}

async fn logged_in(people: People, ask: Login) -> Answer<Certificates> {
    let log_in = LogIn {
        person: ask.user,
        password: Secret::new(ask.password),
        code: Secret::new(ask.code),
        client_address: people.client.to_string(),
    };
    // Before the code is used up.
    let csr = key_of(&ask.csr)?;
    let ttl = ask.ttl_secs.map_or(DEFAULT_TTL, Duration::from_secs);
    if ttl.is_zero() {
        return Err(bad("a login lives for at least a second"));
    }
    let person = people.parts.log_in.ask(&origin(), log_in, ASK_DEADLINE).await??;
    let issue = IssuePerson {
        by: person.to_string(),
        name: person,
        route: None,
        ttl,
        until: None,
        mfa: true,
        client_ip: Some(people.client.ip()),
        csr,
    };
    issue_for(&people.parts, issue).await
}

fn key_of(base64: &str) -> Result<Vec<u8>, Failed> {
    let csr = csr(base64)?;
    PublicKey::from_csr(&csr).map_err(bad)?;
    Ok(csr)
}

fn origin() -> Origin {
    Origin::outside("people")
}

async fn issue_for(parts: &AdminParts, issue: IssuePerson) -> Answer<Certificates> {
    let person = issue.name.clone();
    let asked = parts.issue_person.ask(&origin(), issue, ASK_DEADLINE).await?;
    let Issued { certificate, not_after } = asked.map_err(not_issued)?;
    let snapshot = parts.snapshot()?;
    let roles = snapshot.users.get(&person).map(|record| record.roles.as_slice());
    let certificate = CertificateDer::from(certificate);
    Ok(Json(Certificates {
        cluster: parts.cluster.to_string(),
        user: person.to_string(),
        roles: roles.unwrap_or_default().iter().map(ToString::to_string).collect(),
        certificate: certificates_to_pem(&[certificate]).map_err(bad)?,
        not_after: not_after.to_string(),
        host_ca: certificates_to_pem(&parts.anchors.host).map_err(bad)?,
    }))
}

/// A certificate by virtue of the present one: it ends with it, and says no more of the login.
pub(super) async fn renew(State(signed_in): State<SignedIn>, Json(ask): Json<Renew>) -> Answer<Certificates> {
    surely(renewed(signed_in, ask)).await
}

async fn renewed(signed_in: SignedIn, ask: Renew) -> Answer<Certificates> {
    let SignedIn { api, principal, client } = signed_in;
    let route = ask
        .route
        .map(|route| read_route(&api, &principal.name, route))
        .transpose()?;
    let issue = IssuePerson {
        by: principal.name.to_string(),
        name: principal.name.clone(),
        route,
        ttl: Duration::MAX,
        until: Some(principal.valid_until),
        mfa: principal.mfa,
        client_ip: Some(client.ip()),
        csr: key_of(&ask.csr)?,
    };
    issue_for(&api.parts, issue).await
}

/// Whether there is no such database or the person may not see it reads the same.
fn read_route(api: &Api, person: &PersonName, route: AskedRoute) -> Result<Route, Failed> {
    let not_found = || {
        let why = format!(
            "database {:?} not found, use 'tsh db ls' to see registered databases",
            route.service
        );
        Failed(StatusCode::NOT_FOUND, why)
    };
    let service = ServiceName::new(route.service.as_str()).map_err(|_| not_found())?;
    if !seen_by(api, person)?.contains_key(&service) {
        return Err(not_found());
    }
    Ok(Route {
        service,
        db_user: route.db_user.map(DbUser::new).transpose().map_err(bad)?,
        db_name: route.db_name.map(DbName::new).transpose().map_err(bad)?,
    })
}

/// By name. Where several agents serve a database with different labels, the first that the person sees stands for it.
fn seen_by(api: &Api, person: &PersonName) -> Result<BTreeMap<ServiceName, (DatabaseRecord, Visible)>, Failed> {
    let snapshot = api.snapshot()?;
    let mut seen = BTreeMap::new();
    for node in api.parts.inventory.nodes() {
        for database in node.report.databases {
            if seen.contains_key(&database.service) {
                continue;
            }
            if let Some(visible) = visible(&snapshot, person, &database.labels) {
                seen.insert(database.service.clone(), (database, visible));
            }
        }
    }
    Ok(seen)
}

pub(super) async fn me(State(signed_in): State<SignedIn>) -> Answer<Me> {
    let SignedIn { api, principal, .. } = signed_in;
    let snapshot = api.snapshot()?;
    let record = snapshot.users.get(&principal.name);
    Ok(Json(Me {
        user: principal.name.to_string(),
        cluster: api.parts.cluster.to_string(),
        roles: record
            .into_iter()
            .flat_map(|record| &record.roles)
            .map(ToString::to_string)
            .collect(),
        traits: record.map(|record| record.traits.clone()).unwrap_or_default(),
        valid_until: principal.valid_until.to_string(),
    }))
}

pub(super) async fn databases(State(signed_in): State<SignedIn>) -> Answer<MyDatabases> {
    let seen = seen_by(&signed_in.api, &signed_in.principal.name)?;
    let shown = |(service, (database, visible)): (ServiceName, (DatabaseRecord, Visible))| MyDatabase {
        name: service.to_string(),
        description: database.description,
        protocol: crate::pki::PROTOCOL.to_owned(),
        labels: database.labels.0,
        uri: database.uri,
        allowed_users: visible.allowed_users,
        denied_users: visible.denied_users,
        allowed_names: visible.allowed_names,
        denied_names: visible.denied_names,
    };
    Ok(Json(MyDatabases {
        databases: seen.into_iter().map(shown).collect(),
    }))
}
