//! The client of people: what a proxy says of its cluster, and auth's API through it. See `web/people_api.rs`.

use super::Failure;
use super::http_exchange::{ANSWER_DEADLINE, Answered, exchange};
use crate::model::{ClusterName, Endpoint, NameError, PersonName, ServiceName, SystemClock};
use crate::net::auth_dialer::{AuthDialer, AuthRoute};
use crate::net::tls::Credentials;
use crate::net::web_client::WebClient;
pub use crate::net::web_client::{WebTrust, machine_authorities};
use crate::pki::pem::{certificates_from_pem, certificates_to_pem};
use crate::web::people_api::{Certificates, Login, Me, MyDatabases, Ping, Renew};
use hyper::Method;
use hyper::body::Bytes;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A proxy that answered.
pub struct Contact {
    pub ping: Ping,
    /// An authority of this machine vouches for the proxy's certificate, as that of any website.
    pub vouched_for_by_machine: bool,
}

/// Asks a proxy what its cluster is. With pins, the authorities of the answer are those that have one of them.
///
/// # Errors
/// Nobody answers, the proxy is not believed (the text says what would help), or it is of another cluster than the pins.
pub async fn ping(proxy: &Endpoint, trust: &WebTrust) -> Result<Contact, Failure> {
    let client = WebClient::new(trust.clone(), &SystemClock::shared()).map_err(Failure::failed)?;
    let asked = async {
        let stream = Box::pin(client.dial(proxy))
            .await
            .map_err(|error| Failure::failed(format!("proxy {proxy} cannot be used: {error}")))?;
        let vouched_for = client.is_vouched_for_by_machine(proxy, &stream);
        let answered = exchange(stream, &proxy.host, Method::GET, "/webapi/ping", Bytes::new()).await?;
        Ok((answered, vouched_for))
    };
    let (answered, vouched_for_by_machine) = in_time(asked).await?;
    if !answered.status.is_success() {
        return Err(Failure::failed(format!(
            "{proxy} is not a proxy of this program's cluster, or an older one: it does not answer what its cluster is"
        )));
    }
    let mut ping: Ping = answered.read()?;
    ping.host_ca = believed(&ping, trust)?;
    Ok(Contact {
        ping,
        vouched_for_by_machine,
    })
}

/// The authorities of the answer that are the cluster's, as far as that is known: from a pin, else from the login before. Whoever
/// vouches for the proxy's own certificate does not say which cluster it is of.
fn believed(ping: &Ping, trust: &WebTrust) -> Result<String, Failure> {
    let pinned = !trust.pins.is_empty();
    if !pinned && trust.host_authorities.is_empty() {
        return Ok(ping.host_ca.clone());
    }
    let mut authorities =
        certificates_from_pem(ping.host_ca.as_bytes(), "the proxy's answer").map_err(Failure::failed)?;
    authorities.retain(|authority| {
        if pinned {
            trust.pins.iter().any(|pin| pin.matches(authority))
        } else {
            trust.host_authorities.contains(authority)
        }
    });
    if !authorities.is_empty() {
        return certificates_to_pem(&authorities).map_err(Failure::internal);
    }
    Err(Failure::failed(if pinned {
        format!(
            "the proxy is of cluster {:?}, whose authority does not have this CA pin; compare the pin with `ctl status` on the \
             auth node",
            ping.cluster
        )
    } else {
        format!(
            "the proxy is of cluster {:?}, which is not the one that you logged in to before: its authority is another; if the \
             cluster was made anew, log out and log in again with --ca-pin=sha256:... (from ctl status)",
            ping.cluster
        )
    }))
}

/// Asks auth through a proxy, as a person with a certificate or before the login.
pub struct PeopleClient {
    proxy: Endpoint,
    dialer: AuthDialer,
}

impl PeopleClient {
    /// `host_ca` are the certificates of the host authority: of the profile, or of [`ping`].
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(
        proxy: Endpoint,
        host_ca: &[CertificateDer<'static>],
        credentials: Option<&Credentials>,
    ) -> Result<Self, Failure> {
        let route = AuthRoute::ThroughProxy(vec![proxy.clone()]);
        let dialer =
            AuthDialer::person(route, credentials, host_ca, &SystemClock::shared()).map_err(Failure::failed)?;
        Ok(Self { proxy, dialer })
    }

    /// `body` is JSON; `None` sends none.
    ///
    /// # Errors
    /// Auth cannot be reached, or what it says where it does not do what is asked.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(Failure::internal)?.into(),
            None => Bytes::new(),
        };
        self.call(method, path, body).await?.read()
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Answered, Failure> {
        let asked = async {
            let stream = Box::pin(self.dialer.dial()).await.map_err(|error| {
                Failure::failed(format!("auth cannot be reached through proxy {}: {error}", self.proxy))
            })?;
            exchange(stream, "auth", method, path, body).await
        };
        in_time(asked).await
    }

    /// # Errors
    /// As [`Self::request`].
    pub async fn log_in(&self, login: &Login) -> Result<Certificates, Failure> {
        checked(self.request(Method::POST, "/v1/login", Some(login)).await?)
    }

    /// # Errors
    /// As [`Self::request`].
    pub async fn renew(&self, ask: &Renew) -> Result<Certificates, Failure> {
        checked(self.request(Method::POST, "/v1/certificates", Some(ask)).await?)
    }

    /// # Errors
    /// As [`Self::request`].
    pub async fn me(&self) -> Result<Me, Failure> {
        self.request(Method::GET, "/v1/me", None::<&()>).await
    }

    /// # Errors
    /// As [`Self::request`].
    pub async fn databases(&self) -> Result<MyDatabases, Failure> {
        let found: MyDatabases = self.request(Method::GET, "/v1/databases", None::<&()>).await?;
        for database in &found.databases {
            ServiceName::new(database.name.clone()).map_err(not_a_name)?;
        }
        Ok(found)
    }
}

/// Names of the answer become those of files and of sections of psql's service file.
fn checked(answer: Certificates) -> Result<Certificates, Failure> {
    ClusterName::new(answer.cluster.clone()).map_err(not_a_name)?;
    PersonName::new(answer.user.clone()).map_err(not_a_name)?;
    Ok(answer)
}

fn not_a_name(error: NameError) -> Failure {
    Failure::failed(format!(
        "auth's answer is refused: {error}; ask the cluster's administrator"
    ))
}

async fn in_time<T>(asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(ANSWER_DEADLINE, asked)
        .await
        .unwrap_or_else(|_| Err(Failure::failed("no answer came in time")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::pki::{CaKind, CertificateAuthority};

    #[test]
    fn a_cluster_that_is_known_from_a_login_before_is_believed_by_its_own_authority_only() {
        let authority = || {
            let name = ClusterName::new("gate").unwrap();
            let made =
                CertificateAuthority::generate(CaKind::Host, &name, Timestamp::from_secs(1_800_000_000)).unwrap();
            made.certificate().clone()
        };
        let (old, new, others) = (authority(), authority(), authority());
        let says = |authorities: &[CertificateDer<'_>]| Ping {
            cluster: "gate".to_owned(),
            version: "1".to_owned(),
            proxy: "p:443".to_owned(),
            host_ca: certificates_to_pem(authorities).unwrap(),
            ca_pins: Vec::new(),
        };
        let known = WebTrust {
            host_authorities: vec![old.clone()],
            ..WebTrust::default()
        };
        let rotated = believed(&says(&[new, old.clone()]), &known).unwrap();
        assert_eq!(rotated, certificates_to_pem(&[old]).unwrap());
        for insecure in [false, true] {
            let known = WebTrust {
                insecure,
                ..known.clone()
            };
            let said = believed(&says(std::slice::from_ref(&others)), &known)
                .unwrap_err()
                .to_string();
            assert!(said.contains("log out and log in again with --ca-pin"), "{said}");
        }
        let first = says(&[others]);
        assert_eq!(believed(&first, &WebTrust::default()).unwrap(), first.host_ca);
    }

    #[test]
    fn an_answer_with_what_is_no_name_is_refused() {
        let answer = |cluster: &str, user: &str| {
            checked(Certificates {
                cluster: cluster.to_owned(),
                user: user.to_owned(),
                roles: Vec::new(),
                certificate: String::new(),
                not_after: String::new(),
                host_ca: String::new(),
            })
        };
        assert!(answer("gate", "alice").is_ok());
        assert!(answer("gate]\nhost=elsewhere", "alice").is_err());
        assert!(answer("gate", "../alice").is_err());
    }
}
