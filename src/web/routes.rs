//! The administrator's API: each route asks whether the caller may (`permits.rs`), and then one actor, which audits what it changed before it answers.

use super::admin::AdminParts;
use super::api::{
    AuditEvents, AuditQuery, Problem, PutResources, ResourceDone, ResourceQuery, Resources, ResourcesPut, SignDatabase,
    SignPerson, SignedCertificate,
};
use super::permits::Caller;
use super::{access_routes, kinds, listed, status, token_routes, trace_routes, user_routes};
use crate::actors::address::{AskError, Origin};
use crate::actors::audit_log::QueryAudit;
use crate::actors::ca::{IssueDbServer, IssuePerson, Issued};
use crate::actors::inventory::{NodeForgotten, NodeRecord};
use crate::actors::rbac::{Put, PutResource, RbacError, RemoveNode, RemoveResource, ResourceRef};
use crate::audit::{EventBuilder, EventKind, Query};
use crate::model::{LockName, NodeId, NodeKind, PersonName, Refusal, RoleName, Route, ServiceName, Timestamp};
use crate::pki::CaPin;
use crate::pki::pem::certificates_to_pem;
use crate::policy::{PolicySnapshot, Resource, ResourceKind, Verb, parse_resources};
use crate::telemetry::panics;
use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query as UrlQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;

/// A file of roles; the parser has its own limit below it.
const BODY_MAX_BYTES: usize = 8 * 1024 * 1024;
pub(super) const ASK_DEADLINE: Duration = Duration::from_secs(15);
const AUDIT_LIMIT: usize = 100;

#[derive(Clone)]
pub(super) struct Api {
    pub(super) parts: Arc<AdminParts>,
    pub(super) caller: Caller,
}

pub fn router(parts: Arc<AdminParts>, caller: Caller) -> Router {
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/authorities", get(status::authorities))
        .route("/v1/resources", put(put_resources).get(get_resources))
        .route("/v1/resources/{kind}/{name}", delete(remove_resource))
        .route("/v1/certificates/person", post(sign_person))
        .route("/v1/certificates/database", post(sign_database))
        .route("/v1/tokens", post(token_routes::add).get(token_routes::ls))
        .route("/v1/tokens/remove", post(token_routes::remove))
        .route("/v1/users", post(user_routes::add).get(user_routes::ls))
        .route(
            "/v1/users/{name}",
            patch(user_routes::update).delete(user_routes::remove),
        )
        .route("/v1/users/{name}/reset", post(user_routes::reset))
        .route("/v1/locks", post(access_routes::add_lock))
        .route("/v1/access/explain", get(access_routes::explain_access))
        .route("/v1/nodes/{name}/actors", get(trace_routes::actors))
        .route("/v1/nodes/{name}/actors/{*path}", get(trace_routes::actor))
        .route("/v1/connections", get(trace_routes::connections))
        .route("/v1/connections/{id}/trace", get(trace_routes::trace))
        .route("/v1/audit", get(audit))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(Api { parts, caller })
}

/// Why a request was not done, as the person who typed the command reads it.
pub(super) struct Failed(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}

impl Failed {
    /// With what was written before it.
    fn after(self, done: &[ResourceDone]) -> Self {
        if done.is_empty() {
            return self;
        }
        let written: Vec<String> = done.iter().map(|done| format!("{}/{}", done.kind, done.name)).collect();
        Self(self.0, format!("{}; written before it: {}", self.1, written.join(", ")))
    }
}

pub(super) fn bad(why: impl ToString) -> Failed {
    Failed(StatusCode::BAD_REQUEST, why.to_string())
}

impl From<AskError> for Failed {
    fn from(error: AskError) -> Self {
        Self(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{error}; nothing is known of the outcome, look and repeat"),
        )
    }
}

impl From<RbacError> for Failed {
    fn from(error: RbacError) -> Self {
        let status = match error {
            RbacError::Exists { .. } | RbacError::Changed { .. } => StatusCode::CONFLICT,
            RbacError::TooMany | RbacError::TooLarge { .. } => StatusCode::BAD_REQUEST,
            RbacError::NotAudited(_) | RbacError::Unreadable(_) | RbacError::Store(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self(status, error.to_string())
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("it was done, but the audit log could not be written: {refusal}"),
        )
    }
}

pub(super) type Answer<T> = Result<Json<T>, Failed>;

impl AdminParts {
    pub(super) fn snapshot(&self) -> Result<Arc<PolicySnapshot>, Failed> {
        let newest = self.published.borrow().clone();
        newest.ok_or_else(|| {
            Failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "the rules have not been read yet".to_owned(),
            )
        })
    }
}

impl Api {
    pub(super) fn origin(&self) -> Origin {
        Origin::outside("admin")
    }

    pub(super) fn snapshot(&self) -> Result<Arc<PolicySnapshot>, Failed> {
        self.parts.snapshot()
    }

    /// Where people and nodes reach the cluster: the proxy of this process, or else any that is alive.
    pub(super) fn proxy_address(&self) -> Option<String> {
        let proxies = self.parts.inventory.proxies();
        let own = proxies.iter().find(|proxy| proxy.node == self.parts.trail.node);
        let address = own.or(proxies.first())?.addresses.first()?;
        Some(address.to_string())
    }

    /// The event of something that this caller changed.
    pub(super) fn change(&self, kind: EventKind, name: &str) -> EventBuilder {
        self.parts
            .trail
            .event(kind)
            .field("name", name)
            .field("user", self.caller.name())
    }

    pub(super) async fn audit_change(&self, kind: EventKind, name: &str) -> Result<(), Failed> {
        Ok(self.parts.trail.write(self.change(kind, name)).await?)
    }
}

/// Carries a change and its audit event to the end, also when whoever asked hangs up in between.
pub(super) async fn surely<T: Send + 'static>(change: impl Future<Output = Answer<T>> + Send + 'static) -> Answer<T> {
    tokio::spawn(change).await.unwrap_or_else(|error| {
        let why = panics::of_task(error);
        let why = format!("the change failed ({why}); look whether it was made, and repeat it");
        Err(Failed(StatusCode::INTERNAL_SERVER_ERROR, why))
    })
}

pub(super) fn pins(api: &Api) -> Result<Vec<String>, Failed> {
    let authorities = api.parts.anchors.host.iter();
    authorities
        .map(|ca| CaPin::of(ca).map(|pin| pin.to_string()))
        .collect::<Result<_, _>>()
        .map_err(bad)
}

async fn put_resources(State(api): State<Api>, Json(ask): Json<PutResources>) -> Answer<ResourcesPut> {
    // All documents are read before the first one is stored: a mistake in the last one stores none.
    let resources = parse_resources(&ask.yaml).map_err(bad)?;
    let replaces = ask.replace || ask.instead_of.is_some();
    for resource in &resources {
        api.permit_writing(resource.kind(), replaces)?;
    }
    let instead_of = ask
        .instead_of
        .map(|document| Resource::from_json(&document.to_string()));
    let instead_of = instead_of.transpose().map_err(bad)?;
    if let Some(before) = &instead_of
        && !matches!(resources.as_slice(), [one] if one.kind() == before.kind() && one.name() == before.name())
    {
        return Err(bad(
            "one document is written instead of another of its kind and name, and these are not such two",
        ));
    }
    if !replaces {
        none_exists(&api, &resources)?;
    }
    let mut done: Vec<ResourceDone> = Vec::new();
    for resource in resources {
        let (kind, name) = (resource.kind().to_owned(), resource.name().to_owned());
        let message = PutResource {
            resource,
            replace: ask.replace,
            instead_of: instead_of.clone(),
            by: api.caller.name(),
        };
        let put = api.parts.put.ask(&api.origin(), message, ASK_DEADLINE).await;
        let put = put
            .map_err(Failed::from)
            .and_then(|put| put.map_err(Failed::from))
            .map_err(|failed| failed.after(&done))?;
        done.push(ResourceDone {
            kind,
            name,
            replaced: put == Put::Replaced,
        });
    }
    Ok(Json(ResourcesPut { done }))
}

/// So that of several documents none is written where one of them is there already.
fn none_exists(api: &Api, resources: &[Resource]) -> Result<(), Failed> {
    let snapshot = api.snapshot()?;
    let exists = |resource: &&Resource| match resource {
        Resource::Role(role) => snapshot.roles.contains_key(&role.name),
        Resource::User(user) => snapshot.users.contains_key(&user.name),
        Resource::Db(database) => snapshot.databases.contains_key(&database.name),
        Resource::Lock(lock) => snapshot.locks.get(&lock.name).is_some(),
    };
    match resources.iter().find(exists) {
        None => Ok(()),
        Some(resource) => Err(RbacError::Exists {
            kind: resource.kind(),
            name: resource.name().to_owned(),
        }
        .into()),
    }
}

async fn get_resources(State(api): State<Api>, UrlQuery(query): UrlQuery<ResourceQuery>) -> Answer<Resources> {
    let kind = kinds::find(&query.kind).map_err(bad)?;
    api.permit_reading(kind.name, query.name.is_none())?;
    let snapshot = api.snapshot()?;
    let wanted = |name: &str| query.name.as_ref().is_none_or(|want| want == name);
    let found: Vec<Resource> = match kind.name {
        "role" => snapshot.roles.values().cloned().map(Resource::Role).collect(),
        "user" => snapshot.users.values().cloned().map(Resource::User).collect(),
        "db" => snapshot.databases.values().cloned().map(Resource::Db).collect(),
        "lock" => snapshot.locks.iter().cloned().map(Resource::Lock).collect(),
        _ => return listed::get(&api, kind, query.name.as_deref()).await,
    };
    let found: Vec<Resource> = found.into_iter().filter(|resource| wanted(resource.name())).collect();
    if let (true, Some(name)) = (found.is_empty(), &query.name) {
        return Err(Failed(
            StatusCode::NOT_FOUND,
            format!("there is no {} called {name:?}", kind.name),
        ));
    }
    let documents = found.iter().map(|resource| serde_json::from_str(&resource.to_json()));
    Ok(Json(Resources {
        documents: documents.collect::<Result<_, _>>().map_err(bad)?,
        yaml: found
            .iter()
            .map(Resource::to_yaml)
            .collect::<Result<_, _>>()
            .map_err(bad)?,
    }))
}

async fn remove_resource(
    State(api): State<Api>,
    Path((kind, name)): Path<(String, String)>,
) -> Answer<serde_json::Value> {
    let kind = kinds::find(&kind).map_err(bad)?;
    api.permit_word(kind.name, Verb::Delete)?;
    let was_there = match kind.name {
        "role" => remove(&api, ResourceRef::Role(RoleName::new(name.as_str()).map_err(bad)?)).await?,
        "db" => remove(&api, ResourceRef::Db(ServiceName::new(name.as_str()).map_err(bad)?)).await?,
        "lock" => remove(&api, ResourceRef::Lock(LockName::new(name.as_str()).map_err(bad)?)).await?,
        "user" => user_routes::removed(&api, &PersonName::new(name.as_str()).map_err(bad)?).await?,
        "node" => return remove_node(&api, &name).await,
        _ => {
            let why = kind.not_removed.unwrap_or("it is removed another way");
            return Err(bad(format!("a {} cannot be removed so: {why}", kind.name)));
        }
    };
    if !was_there {
        return Err(Failed(
            StatusCode::NOT_FOUND,
            format!("there is no {} called {name:?}", kind.name),
        ));
    }
    Ok(Json(serde_json::json!({ "removed": name })))
}

async fn remove(api: &Api, resource: ResourceRef) -> Result<bool, Failed> {
    let by = api.caller.name();
    let message = RemoveResource { resource, by };
    Ok(api.parts.remove.ask(&api.origin(), message, ASK_DEADLINE).await??)
}

/// A node by its name, as long as it is alive, or by its id at any time.
async fn remove_node(api: &Api, name: &str) -> Answer<serde_json::Value> {
    let named: Vec<NodeRecord> = api
        .parts
        .inventory
        .nodes()
        .into_iter()
        .filter(|node| node.name.as_str() == name || node.node.to_string() == name)
        .collect();
    let node = match (named.as_slice(), name.parse::<NodeId>()) {
        ([one], _) => one.node,
        ([], Ok(id)) => id,
        ([], Err(_)) => {
            let why = format!(
                "no node called {name:?} is alive; name one that is gone by its id (see ctl audit ls --event=instance.join)"
            );
            return Err(Failed(StatusCode::NOT_FOUND, why));
        }
        (several, _) => {
            let ids: Vec<String> = several.iter().map(|node| node.node.to_string()).collect();
            return Err(bad(format!(
                "several nodes are called {name:?}; name one by its id: {}",
                ids.join(", ")
            )));
        }
    };
    if named.iter().any(|node| node.kinds.contains(&NodeKind::Auth)) {
        return Err(bad(format!(
            "{name:?} is the auth service itself; it cannot be removed"
        )));
    }
    let message = RemoveNode {
        node,
        by: api.caller.name(),
    };
    api.parts
        .remove_node
        .ask(&api.origin(), message, ASK_DEADLINE)
        .await??;
    api.parts
        .forget_node
        .ask(&api.origin(), NodeForgotten(node), ASK_DEADLINE)
        .await?;
    Ok(Json(serde_json::json!({ "removed": name })))
}

async fn sign_person(State(api): State<Api>, Json(ask): Json<SignPerson>) -> Answer<SignedCertificate> {
    // Whoever may sign for others may be anybody: no preset role has it.
    api.permit(ResourceKind::CertAuthority, Verb::Create)?;
    let service = ask.db_service.map(ServiceName::new).transpose().map_err(bad)?;
    let message = IssuePerson {
        by: api.caller.name(),
        name: PersonName::new(ask.user).map_err(bad)?,
        route: service.map(|service| Route {
            service,
            db_user: None,
            db_name: None,
        }),
        ttl: Duration::from_secs(ask.ttl_secs),
        until: None,
        mfa: false,
        // Whoever asks here is an administrator, not the client.
        client_ip: None,
        csr: csr(&ask.csr)?,
    };
    let issued = api
        .parts
        .issue_person
        .ask(&api.origin(), message, ASK_DEADLINE)
        .await?
        .map_err(bad)?;
    signed(issued, &api.parts.anchors.host)
}

async fn sign_database(State(api): State<Api>, Json(ask): Json<SignDatabase>) -> Answer<SignedCertificate> {
    api.permit(ResourceKind::CertAuthority, Verb::Create)?;
    let message = IssueDbServer {
        by: api.caller.name(),
        hosts: ask.hosts,
        ttl: Duration::from_secs(ask.ttl_secs),
        csr: csr(&ask.csr)?,
    };
    let issued = api
        .parts
        .issue_db_server
        .ask(&api.origin(), message, ASK_DEADLINE)
        .await?
        .map_err(bad)?;
    signed(issued, &api.parts.anchors.db_client)
}

pub(super) fn csr(base64: &str) -> Result<Vec<u8>, Failed> {
    BASE64
        .decode(base64.as_bytes())
        .map_err(|error| bad(format!("the certificate request is not base64: {error}")))
}

fn signed(issued: Issued, authorities: &[CertificateDer<'static>]) -> Answer<SignedCertificate> {
    let leaf = CertificateDer::from(issued.certificate);
    Ok(Json(SignedCertificate {
        certificate: certificates_to_pem(&[leaf]).map_err(bad)?,
        authorities: certificates_to_pem(authorities).map_err(bad)?,
        not_after: issued.not_after.to_string(),
    }))
}

async fn audit(State(api): State<Api>, UrlQuery(query): UrlQuery<AuditQuery>) -> Answer<AuditEvents> {
    api.permit_reading(ResourceKind::Event.label(), true)?;
    let since = query
        .since
        .map(|text| {
            Timestamp::parse_rfc3339(&text).ok_or_else(|| {
                bad(format!(
                    "{text:?} is not a time; write RFC 3339, for example 2026-01-31T12:00:00Z"
                ))
            })
        })
        .transpose()?;
    let query = Query {
        user: query.user,
        db: query.db,
        event: query.event,
        since,
        limit: query.limit.unwrap_or(AUDIT_LIMIT),
        ..Query::default()
    };
    let events = api
        .parts
        .query
        .ask(&api.origin(), QueryAudit(query), ASK_DEADLINE)
        .await?
        .map_err(bad)?;
    Ok(Json(AuditEvents { events }))
}
