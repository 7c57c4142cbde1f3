//! HTTPS to a proxy, before anything is known of its cluster, or with what is known.

use super::cryptography::provider;
use super::socket;
use super::tls::{ClientTls, ClockTime, HANDSHAKE_DEADLINE, PinnedVerifier, TlsError, connect, kind_name, roots};
use crate::model::{Endpoint, NodeKind, SharedClock};
use crate::pki::CaPin;
use crate::protocol::alpn;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::time_provider::TimeProvider as _;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::sync::Arc;
use webpki::EndEntityCert;

/// Whom a proxy is believed by, besides the authorities of this machine (or those of `SSL_CERT_FILE`).
#[derive(Debug, Clone, Default)]
pub struct WebTrust {
    /// The host authority of the cluster, where it is known from a login before.
    pub host_authorities: Vec<CertificateDer<'static>>,
    pub pins: Vec<CaPin>,
    /// Believe whatever answers. For the first contact only: whoever answers then is believed from then on.
    pub insecure: bool,
}

/// The authorities of this machine, or those of `SSL_CERT_FILE`; none where they cannot be read.
pub fn machine_authorities() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// Dials a proxy for HTTP/1.1.
#[derive(Debug)]
pub struct WebClient {
    config: Arc<ClientConfig>,
    verifier: Arc<WebVerifier>,
    clock: Arc<ClockTime>,
}

impl WebClient {
    pub fn new(trust: WebTrust, clock: &SharedClock) -> Result<Self, TlsError> {
        let verifier = Arc::new(WebVerifier::new(trust)?);
        let clock = Arc::new(ClockTime(clock.clone()));
        let mut config = ClientConfig::builder_with_details(provider(), clock.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn::HTTP_1.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            verifier,
            clock,
        })
    }

    /// Whether an authority of this machine vouches for the proxy that was dialled, whatever else does.
    pub fn is_vouched_for_by_machine(&self, proxy: &Endpoint, stream: &ClientTls<socket::Tcp>) -> bool {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let Some((end_entity, intermediates)) = chain.split_first() else {
            return false;
        };
        let now = self.clock.current_time();
        self.verifier
            .public
            .as_ref()
            .zip(name_of(proxy).ok())
            .zip(now)
            .is_some_and(|((public, name), now)| {
                public
                    .verify_server_cert(end_entity, intermediates, &name, &[], now)
                    .is_ok()
            })
    }

    /// # Errors
    /// Nobody answers, or the certificate is not believed: the text says what would help.
    pub async fn dial(&self, proxy: &Endpoint) -> io::Result<ClientTls<socket::Tcp>> {
        let name = name_of(proxy).map_err(io::Error::other)?;
        let dialled = async {
            let tcp = socket::connect(&proxy.host, proxy.port).await?;
            connect(self.config.clone(), name, tcp).await.map_err(plain)
        };
        tokio::time::timeout(HANDSHAKE_DEADLINE, dialled)
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the handshake was not done in time",
                ))
            })
    }
}

fn name_of(proxy: &Endpoint) -> Result<ServerName<'static>, TlsError> {
    let bare = proxy.host.trim_matches(['[', ']']).to_owned();
    ServerName::try_from(bare.clone()).map_err(|_| TlsError::Name(bare))
}

/// Without what rustls writes before a text of ours.
fn plain(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::General(text)) => io::Error::other(text.clone()),
        _ => error,
    }
}

/// A certificate is believed by the first of these that knows it.
#[derive(Debug)]
struct WebVerifier {
    /// For the name that was dialled. `None` where this machine has no authorities.
    public: Option<Arc<WebPkiServerVerifier>>,
    /// For a proxy of the cluster, whatever its name.
    cluster: Option<Arc<WebPkiServerVerifier>>,
    pinned: Option<PinnedVerifier>,
    insecure: bool,
    /// The name of any proxy of a cluster.
    kind: ServerName<'static>,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl WebVerifier {
    fn new(trust: WebTrust) -> Result<Self, TlsError> {
        let mut public = RootCertStore::empty();
        let (_added, _not_understood) = public.add_parsable_certificates(machine_authorities());
        let cluster = roots(&trust.host_authorities)?;
        Ok(Self {
            public: verifier(Arc::new(public))?,
            cluster: verifier(cluster)?,
            pinned: (!trust.pins.is_empty()).then(|| PinnedVerifier {
                pins: trust.pins,
                provider: provider(),
            }),
            insecure: trust.insecure,
            kind: kind_name(NodeKind::Proxy)?,
            algorithms: provider().signature_verification_algorithms,
        })
    }

    /// Why nobody believes the certificate, and what the person can do.
    fn advice(&self, end_entity: &CertificateDer<'_>, error: &Error) -> String {
        if self.pinned.is_some() {
            return format!(
                "the proxy is not of the cluster with this CA pin ({error}); compare the pin with `ctl status` on the auth node"
            );
        }
        if self.cluster.is_some() {
            return format!(
                "the proxy is not of the cluster that you logged in to before ({error}); if the cluster was made anew, log out and \
                 log in again with --ca-pin=sha256:... (from ctl status)"
            );
        }
        let of_a_cluster = EndEntityCert::try_from(end_entity)
            .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&self.kind).is_ok());
        if of_a_cluster {
            return "the proxy presents a certificate of its own cluster, which this machine does not know; give \
                    --ca-pin=sha256:... (from ctl status), or --insecure for the first contact only"
                .to_owned();
        }
        format!(
            "the proxy's certificate is not trusted by this machine: {error}; name a file with its authority in SSL_CERT_FILE, or \
             give --ca-pin=sha256:... (from ctl status), or --insecure for the first contact only"
        )
    }
}

fn verifier(roots: Arc<RootCertStore>) -> Result<Option<Arc<WebPkiServerVerifier>>, TlsError> {
    if roots.is_empty() {
        return Ok(None);
    }
    Ok(Some(
        WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?,
    ))
}

impl ServerCertVerifier for WebVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut last = Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let ways: [(Option<&dyn ServerCertVerifier>, &ServerName<'_>); 3] = [
            (
                self.public.as_deref().map(|way| way as &dyn ServerCertVerifier),
                server_name,
            ),
            (
                self.cluster.as_deref().map(|way| way as &dyn ServerCertVerifier),
                &self.kind,
            ),
            (
                self.pinned.as_ref().map(|way| way as &dyn ServerCertVerifier),
                &self.kind,
            ),
        ];
        for (way, name) in ways {
            let Some(way) = way else { continue };
            match way.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => last = error,
            }
        }
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General(self.advice(end_entity, &last)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
