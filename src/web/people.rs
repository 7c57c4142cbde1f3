//! The API that auth offers to people, over ALPN `postern-person/1`: logins without a certificate, and with one what the person
//! may do, the administrator's API among it as far as the roles' rules allow.
//!
//! Chain and signature of a certificate are checked in TLS. Its dates, its usage and what has become of the person since are
//! answered here, in words.

use super::admin::AdminParts;
use super::people_routes;
use super::permits::{Caller, only_for_people};
use super::routes::{self, Api, Failed};
use crate::actors::carried::{PersonConnection, ServePeople};
use crate::actors::places::{PlaceLimits, Places};
use crate::model::Principal;
use crate::pki::{CertificateError, verify_person};
use crate::policy::PINNED_IP_MESSAGE;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A request takes a fraction of a second, so that this many serve thousands of people, and those of one address the office
/// behind it. Anybody can open one without a login: an address that keeps its own open leaves the others theirs.
const PLACES: PlaceLimits = PlaceLimits {
    all: 256,
    per_address: 32,
};
/// From the handshake to the end of the request's headers: whoever says nothing makes place. As long as a handshake may take.
const HEADERS_DEADLINE: Duration = Duration::from_secs(15);
/// The slowest request waits for a core to hash a password; a connection serves one.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);
/// A login or a request for a certificate.
const BODY_MAX_BYTES: usize = 64 * 1024;

pub struct PeopleApi {
    parts: Arc<AdminParts>,
    places: Places,
}

impl PeopleApi {
    pub fn new(parts: Arc<AdminParts>) -> Self {
        Self {
            parts,
            places: Places::new(PLACES),
        }
    }
}

impl ServePeople for PeopleApi {
    fn serve(&self, person: PersonConnection) -> BoxFuture<'static, ()> {
        let parts = self.parts.clone();
        let place = self.places.enter(person.client.ip());
        async move {
            let router = match &place {
                Some(_) => router(parts, &person),
                None => refusing(Failed(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many connections of your address, or of all, are open at the moment; try again".to_owned(),
                )),
            };
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_DEADLINE)
                .serve_connection(TokioIo::new(person.stream), TowerToHyperService::new(router));
            match tokio::time::timeout(CONNECTION_DEADLINE, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(peer = %person.client, %error, "a person's request was not finished")
                }
                Err(_) => tracing::debug!(peer = %person.client, "a person's request was not done in time"),
            }
            drop(place);
        }
        .boxed()
    }
}

/// Somebody at the other end of a connection.
#[derive(Clone)]
pub(super) struct People {
    pub parts: Arc<AdminParts>,
    pub client: SocketAddr,
}

/// Who has logged in, and the API with their name on it.
#[derive(Clone)]
pub(super) struct SignedIn {
    pub api: Api,
    pub principal: Arc<Principal>,
    pub client: SocketAddr,
}

fn router(parts: Arc<AdminParts>, person: &PersonConnection) -> Router {
    let people = People {
        parts: parts.clone(),
        client: person.client,
    };
    let login = Router::new()
        .route("/v1/login", post(people_routes::log_in))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(people);
    let rest = match verify_person(&person.chain, &parts.anchors, parts.clock.now()) {
        Ok(principal) => for_person(parts, Arc::new(principal), person.client),
        Err(error) => refusing(not_signed_in(&error)),
    };
    login.merge(rest)
}

fn for_person(parts: Arc<AdminParts>, principal: Arc<Principal>, client: SocketAddr) -> Router {
    let caller = Caller::Person(principal.clone());
    let api = Api {
        parts: parts.clone(),
        caller: caller.clone(),
    };
    let signed_in = SignedIn { api, principal, client };
    Router::new()
        .route("/v1/me", get(people_routes::me))
        .route("/v1/databases", get(people_routes::databases))
        .route("/v1/certificates", post(people_routes::renew))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(signed_in.clone())
        .merge(routes::router(parts, caller).route_layer(from_fn(only_for_people)))
        .fallback(|| async {
            let why = "auth does not know this request; it may be of another version";
            Failed(StatusCode::NOT_FOUND, why.to_owned())
        })
        .layer(from_fn_with_state(signed_in, still_welcome))
}

/// Answers whatever is asked with why not.
fn refusing(Failed(status, why): Failed) -> Router {
    Router::new().fallback(move || async move { Failed(status, why) })
}

fn not_signed_in(error: &CertificateError) -> Failed {
    match error {
        CertificateError::Missing => Failed(
            StatusCode::UNAUTHORIZED,
            "you are not logged in; log in first".to_owned(),
        ),
        CertificateError::Expired { at } => Failed(
            StatusCode::UNAUTHORIZED,
            format!("your certificate expired at {at}; log in again"),
        ),
        other => Failed(
            StatusCode::FORBIDDEN,
            format!("your certificate is not accepted: {other}; log in again"),
        ),
    }
}

/// What may have changed since the certificate was made, and what it is not for.
async fn still_welcome(State(signed_in): State<SignedIn>, request: Request, next: Next) -> Result<Response, Failed> {
    let SignedIn { api, principal, client } = &signed_in;
    let snapshot = api.snapshot()?;
    let forbidden = |why: String| Failed(StatusCode::FORBIDDEN, why);
    let record = snapshot.users.get(&principal.name);
    let roles = record.map(|record| record.roles.as_slice()).unwrap_or_default();
    if let Some(lock) = snapshot.lock_in_force(&principal.name, roles, &[], api.parts.clock.now()) {
        return Err(forbidden(lock.sentence()));
    }
    if record.is_none() {
        return Err(forbidden("access denied: there is no such user any more".to_owned()));
    }
    // It lies where programs read it, and opens that database; it is worth no more than that.
    if let Some(route) = &principal.route {
        return Err(forbidden(format!(
            "this certificate is for database service {:?} only; use the certificate of your login",
            route.service.as_str()
        )));
    }
    let pinned = principal.pinned_ip.map(|ip| ip.to_canonical());
    if snapshot.options_of(&principal.name).pin_source_ip && pinned != Some(client.ip().to_canonical()) {
        return Err(forbidden(format!(
            "{PINNED_IP_MESSAGE}; log in again from the address that you connect from"
        )));
    }
    drop(snapshot);
    Ok(next.run(request).await)
}
