//! Which address is answered with what, and what holds for every answer: the rates, where a form may come from, the headers.

use super::{PageParts, html, sign_up};
use crate::actors::accounts::{AddressRates, Rate, Try};
use crate::actors::address::Origin;
use crate::pki::{CaPin, PkiError, pem};
use crate::web::people_api::Ping;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The form has three fields, of which the longest is a password of 128 characters.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// How often each address asks: for pages behind which a secret is, and for the others.
pub(super) struct Rates {
    guesses: AddressRates,
    others: AddressRates,
}

impl Rates {
    pub fn new() -> Self {
        Self {
            guesses: AddressRates::new(Rate::GUESSES),
            others: AddressRates::new(Rate::HIGH),
        }
    }
}

/// Whose requests these are, and what they are answered from.
pub(super) struct Asker {
    pub parts: Arc<PageParts>,
    pub rates: Arc<Mutex<Rates>>,
    pub peer: SocketAddr,
    pub origin: Origin,
}

pub(super) fn router(asker: Arc<Asker>) -> Router {
    let links = || get(sign_up::show).post(sign_up::accept);
    Router::new()
        .route("/", get(front))
        .route("/webapi/ping", get(ping))
        .route(html::STYLE_PATH, get(style))
        .route("/web/invite/{token}", links())
        .route("/web/reset/{token}", links())
        .fallback(no_page)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(from_fn_with_state(asker.clone(), guard))
        .with_state(asker)
}

/// A page with its status.
pub(super) fn answer(status: StatusCode, page: maud::Markup) -> Response {
    (status, Html(page.into_string())).into_response()
}

pub(super) fn too_many(rate: Rate) -> Response {
    let text = "Too many requests came from your address. Wait a minute and try again.";
    let mut response = answer(StatusCode::TOO_MANY_REQUESTS, html::notice("Too many requests", text));
    retry_after(&mut response, rate.refill_secs());
    response
}

pub(super) fn retry_after(response: &mut Response, secs: u64) {
    response.headers_mut().insert(header::RETRY_AFTER, secs.into());
}

async fn guard(State(asker): State<Arc<Asker>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&asker, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    add_headers(response.headers_mut());
    response
}

/// Why a request is not looked at.
fn refusal(asker: &Asker, request: &Request) -> Option<Response> {
    let is_link = ["/web/invite/", "/web/reset/"]
        .iter()
        .any(|links| request.uri().path().starts_with(links));
    let rate = if is_link { Rate::GUESSES } else { Rate::HIGH };
    let tried = {
        let mut rates = asker.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let rates = if is_link { &mut rates.guesses } else { &mut rates.others };
        rates.take(&asker.peer.to_string(), asker.parts.clock.now())
    };
    if tried == Try::FirstRefused {
        tracing::warn!(peer = %asker.peer, "an address asks for pages too often; it is not answered for a while");
    }
    if tried != Try::Allowed {
        return Some(too_many(rate));
    }
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if !reads && is_of_another_site(request.headers(), request.uri()) {
        let text = "This form was sent by a page of another site. Open the link itself, in a window of its own, and try again.";
        return Some(answer(StatusCode::FORBIDDEN, html::notice("Not from here", text)));
    }
    None
}

/// By what browsers say of themselves. `Origin: null` is what they say after a page with `Referrer-Policy: no-referrer`, which
/// ours are; those that say it in place of another site's name send `Sec-Fetch-Site` too. Other clients send neither.
fn is_of_another_site(headers: &HeaderMap, uri: &Uri) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN).filter(|origin| *origin != "null") else {
        return false;
    };
    // HTTP/2 has the host in the address.
    let host = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| headers.get(header::HOST).map(HeaderValue::as_bytes));
    host.is_none_or(|host| origin.as_bytes().strip_prefix(b"https://") != Some(host))
}

fn add_headers(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; \
                          frame-ancestors 'none'";
    const EVERYWHERE: [(HeaderName, &str); 6] = [
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in EVERYWHERE {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

async fn front(State(asker): State<Arc<Asker>>) -> Response {
    let parts = &asker.parts;
    answer(StatusCode::OK, html::front(parts.cluster.as_str(), &parts.proxy))
}

async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "max-age=3600"),
    ];
    (headers, html::STYLE).into_response()
}

async fn ping(State(asker): State<Arc<Asker>>) -> Response {
    match answer_ping(&asker.parts) {
        Ok(ping) => Json(ping).into_response(),
        Err(error) => {
            tracing::error!(%error, "a ping could not be answered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn answer_ping(parts: &PageParts) -> Result<Ping, PkiError> {
    let in_use = parts.identity.in_use();
    let host = &in_use.identity.anchors.host;
    Ok(Ping {
        cluster: parts.cluster.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        proxy: parts.proxy.clone(),
        host_ca: pem::certificates_to_pem(host)?,
        ca_pins: host
            .iter()
            .map(|certificate| CaPin::of(certificate).map(|pin| pin.to_string()))
            .collect::<Result<_, _>>()?,
    })
}

async fn no_page() -> Response {
    let text = "There is no page at this address. If you were given a link, check that all of it was copied.";
    answer(StatusCode::NOT_FOUND, html::notice("No such page", text))
}

async fn no_method() -> Response {
    let text = "This address does not take that kind of request.";
    answer(StatusCode::METHOD_NOT_ALLOWED, html::notice("Not possible", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_another_site_is_known_by_what_its_browser_says() {
        let of_another = |uri: &str, said: &[(&'static str, &'static str)]| {
            let headers = said.iter().map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            is_of_another_site(&headers.collect(), &uri.parse().unwrap())
        };
        let host = ("host", "gate.example:443");
        assert!(!of_another("/", &[host]));
        assert!(!of_another(
            "/",
            &[host, ("sec-fetch-site", "same-origin"), ("origin", "null")]
        ));
        assert!(!of_another("/", &[host, ("sec-fetch-site", "none")]));
        assert!(of_another(
            "/",
            &[host, ("sec-fetch-site", "cross-site"), ("origin", "null")]
        ));
        assert!(of_another("/", &[host, ("sec-fetch-site", "same-site")]));
        assert!(!of_another("/", &[host, ("origin", "null")]));
        assert!(!of_another("/", &[host, ("origin", "https://gate.example:443")]));
        assert!(of_another("/", &[host, ("origin", "http://gate.example:443")]));
        assert!(of_another(
            "/",
            &[host, ("origin", "https://gate.example:443.evil.example")]
        ));
        assert!(of_another("/", &[("origin", "https://gate.example")]));
        let in_http_2 = "https://gate.example/web/invite/x";
        assert!(!of_another(in_http_2, &[("origin", "https://gate.example")]));
        assert!(of_another(in_http_2, &[("origin", "https://evil.example")]));
    }
}
