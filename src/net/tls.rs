//! The TLS legs: who presents what, and who believes whom. Between nodes verification is never off; what an agent verifies of
//! PostgreSQL is its configuration's to say (`upstream_tls`).
//!
//! | leg | server presents | client presents |
//! |---|---|---|
//! | client – proxy | web certificate | the person's certificate, or nothing: said in words after the StartupMessage |
//! | node – node | host certificate | host certificate |
//! | person – auth | host certificate | the person's certificate, or nothing: said in words in HTTP |
//! | joining node – auth | host certificate, under a pinned authority | nothing, but a token |
//! | agent – PostgreSQL | what the database has | a certificate of the db-client authority, CN = database user |

use super::big_reads::BigReads;
use super::cryptography::provider;
use super::socket::Tcp;
use super::web_certificates::{Resolver, WebCertificates};
use crate::model::{NodeKind, SharedClock};
use crate::pki::{CaPin, CertificateError, PrivateKey, TrustAnchors, chains_to_user_ca};
use crate::protocol::alpn;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

/// From the first byte of a handshake to its last. The reference gives 15 s, enough for a phone on a train.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(15);
/// What rustls holds unsent for one connection; the same as one copy buffer.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// The most that one record of TLS has for a PostgreSQL client: what PostgreSQL itself puts into one, its send buffer. libpq makes room
/// for so much before it reads a record (`pqReadData`); of a larger one a part may stay in OpenSSL, and a program that then waits for the
/// socket, as pg_basebackup and pg_receivewal do, waits for ever.
const CLIENT_RECORD_BYTES: usize = 8 * 1024;
/// rustls counts the record's header in.
const RECORD_HEADER_BYTES: usize = 5;

pub type ServerTls = tokio_rustls::server::TlsStream<BigReads<Tcp>>;
pub type ClientTls<T> = tokio_rustls::client::TlsStream<BigReads<T>>;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the TLS configuration cannot be made: {0}")]
    Config(#[from] rustls::Error),
    #[error("the TLS configuration cannot be made: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("{0:?} is not a host name or an address")]
    Name(String),
}

/// A certificate chain with its key.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKey,
}

/// The time that certificates are checked at is the node's clock.
pub(super) struct ClockTime(pub(super) SharedClock);

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

impl rustls::time_provider::TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let secs = u64::try_from(self.0.now().as_secs()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(secs)))
    }
}

pub(super) fn roots(anchors: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for anchor in anchors {
        store.add(anchor.clone())?;
    }
    Ok(Arc::new(store))
}

/// The server sides of a node's port, chosen by what the ClientHello offers.
#[derive(Debug, Clone)]
pub struct ServerSides {
    postgres: Arc<ServerConfig>,
    node: Arc<ServerConfig>,
    join: Arc<ServerConfig>,
    person: Arc<ServerConfig>,
    /// What browsers speak, and programs over HTTP.
    web: Arc<ServerConfig>,
    /// The same where HTTP is answered with one text, in HTTP/1.1.
    plain_web: Arc<ServerConfig>,
}

/// What a port has for those that speak HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    Pages,
    OneText,
}

/// What a TLS client wants to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    PostgreSql,
    Tunnel,
    Node,
    Join,
    ToAuth,
    /// The API for people, with auth.
    Person,
    /// The same, with a proxy that carries it to auth.
    PersonToAuth,
    /// The same, carried by a proxy.
    Carried,
    Http,
}

impl ServerSides {
    /// `web` is presented to people; nodes are shown the host certificate.
    pub fn new(
        host: &Credentials,
        web: &WebCertificates,
        anchors: &TrustAnchors,
        clock: &SharedClock,
    ) -> Result<Self, TlsError> {
        let to_people = Arc::new(Resolver::new(web.clone(), host, &provider())?);
        let to_nodes = Arc::new(Resolver::new(WebCertificates::default(), host, &provider())?);
        let server =
            |verifier: Arc<dyn ClientCertVerifier>, presented: &Arc<Resolver>, alpn: &[&[u8]]| -> Result<_, TlsError> {
                let mut config = ServerConfig::builder_with_details(provider(), Arc::new(ClockTime(clock.clone())))
                    .with_safe_default_protocol_versions()?
                    .with_client_cert_verifier(verifier)
                    .with_cert_resolver(presented.clone());
                config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
                // No tickets: PostgreSQL's clients never use them, and a resumed session would keep a certificate that has
                // been revoked since.
                config.send_tls13_tickets = 0;
                config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
                Ok(config)
            };
        let nodes = WebPkiClientVerifier::builder_with_provider(roots(&anchors.host)?, provider()).build()?;
        let people = Arc::new(PeopleVerifier {
            anchors: anchors.clone(),
            algorithms: provider().signature_verification_algorithms,
        });
        let nobody = WebPkiClientVerifier::no_client_auth;
        let mut postgres = server(people.clone(), &to_people, &[alpn::POSTGRESQL])?;
        postgres.max_fragment_size = Some(CLIENT_RECORD_BYTES + RECORD_HEADER_BYTES);
        Ok(Self {
            postgres: Arc::new(postgres),
            node: server(nodes, &to_nodes, &[alpn::TUNNEL, alpn::NODE, alpn::CARRIED])?.into(),
            join: server(nobody(), &to_nodes, &[alpn::JOIN, alpn::TO_AUTH, alpn::PERSON_TO_AUTH])?.into(),
            person: server(people, &to_nodes, &[alpn::PERSON])?.into(),
            web: server(nobody(), &to_people, &[alpn::HTTP_2, alpn::HTTP_1])?.into(),
            plain_web: server(nobody(), &to_people, &[alpn::HTTP_1])?.into(),
        })
    }

    fn choose(&self, offered: &[Vec<u8>], http: Http) -> (Spoken, &Arc<ServerConfig>) {
        let offers = |name: &[u8]| offered.iter().any(|o| o == name);
        if offers(alpn::POSTGRESQL) {
            (Spoken::PostgreSql, &self.postgres)
        } else if offers(alpn::TUNNEL) {
            (Spoken::Tunnel, &self.node)
        } else if offers(alpn::NODE) {
            (Spoken::Node, &self.node)
        } else if offers(alpn::JOIN) {
            (Spoken::Join, &self.join)
        } else if offers(alpn::TO_AUTH) {
            (Spoken::ToAuth, &self.join)
        } else if offers(alpn::PERSON) {
            (Spoken::Person, &self.person)
        } else if offers(alpn::PERSON_TO_AUTH) {
            (Spoken::PersonToAuth, &self.join)
        } else if offers(alpn::CARRIED) {
            (Spoken::Carried, &self.node)
        } else if http == Http::Pages {
            (Spoken::Http, &self.web)
        } else {
            (Spoken::Http, &self.plain_web)
        }
    }

    /// The handshake after a PostgreSQL SSLRequest.
    pub async fn accept_postgres(&self, tcp: Tcp) -> io::Result<ServerTls> {
        let acceptor = tokio_rustls::TlsAcceptor::from(self.postgres.clone());
        let mut stream = acceptor.accept(BigReads::new(tcp)).await?;
        stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER_BYTES));
        Ok(stream)
    }

    /// The handshake of a person inside of what a proxy carries.
    pub async fn accept_person<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        carried: T,
    ) -> io::Result<tokio_rustls::server::TlsStream<T>> {
        let acceptor = tokio_rustls::TlsAcceptor::from(self.person.clone());
        let mut stream = acceptor.accept(carried).await?;
        stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER_BYTES));
        Ok(stream)
    }

    /// The handshake of a connection that begins with TLS.
    pub async fn accept(&self, tcp: Tcp, http: Http) -> io::Result<(Spoken, ServerTls)> {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), BigReads::new(tcp));
        let hello = acceptor.await?;
        let offered: Vec<Vec<u8>> = hello
            .client_hello()
            .alpn()
            .map(|names| names.map(<[u8]>::to_vec).collect())
            .unwrap_or_default();
        let (spoken, config) = self.choose(&offered, http);
        // From our answer to the peer's next words.
        let began = Instant::now();
        let mut stream = hello.into_stream(config.clone()).await?;
        stream.get_mut().0.handshake_took(began.elapsed());
        stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER_BYTES));
        Ok((spoken, stream))
    }
}

/// Whether the peer of an accepted connection chose HTTP/2.
pub fn speaks_http_2(stream: &ServerTls) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(alpn::HTTP_2)
}

/// The certificate chain that the peer of an accepted connection presented.
pub fn peer_chain<T>(stream: &tokio_rustls::server::TlsStream<T>) -> Vec<CertificateDer<'static>> {
    owned(stream.get_ref().1.peer_certificates())
}

/// The certificate chain that a server presented.
pub fn server_chain<T>(stream: &ClientTls<T>) -> Vec<CertificateDer<'static>> {
    owned(stream.get_ref().1.peer_certificates())
}

fn owned(chain: Option<&[CertificateDer<'_>]>) -> Vec<CertificateDer<'static>> {
    chain
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect()
}

/// How a node proves itself to another and what it demands of it.
#[derive(Debug, Clone)]
pub struct NodeClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// The name under which every node of a kind can be verified; see `pki::profile`.
pub(super) fn kind_name(kind: NodeKind) -> Result<ServerName<'static>, TlsError> {
    let name = format!("{kind}.kind.postern.internal");
    ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name))
}

impl NodeClient {
    /// Between nodes that both have host certificates.
    pub fn mutual(
        host: &Credentials,
        anchors: &TrustAnchors,
        peer: NodeKind,
        alpn: &[u8],
        clock: &SharedClock,
    ) -> Result<Self, TlsError> {
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock.clone())))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(&anchors.host)?)
            .with_client_auth_cert(host.chain.clone(), host.key.to_rustls())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name: kind_name(peer)?,
        })
    }

    /// The first contact of a node that has nothing but a token and the cluster's pins.
    pub fn joining(pins: Vec<CaPin>, peer: NodeKind, alpn: &[u8], clock: &SharedClock) -> Result<Self, TlsError> {
        let verifier = Arc::new(PinnedVerifier {
            pins,
            provider: provider(),
        });
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock.clone())))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name: kind_name(peer)?,
        })
    }

    /// From the machine of a person, who has a certificate or is about to get one.
    pub fn person(
        certificate: Option<&Credentials>,
        host_authorities: &[CertificateDer<'static>],
        peer: NodeKind,
        alpn: &[u8],
        clock: &SharedClock,
    ) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock.clone())))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(host_authorities)?);
        let mut config = match certificate {
            Some(person) => builder.with_client_auth_cert(person.chain.clone(), person.key.to_rustls())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name: kind_name(peer)?,
        })
    }

    pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(&self, io: T) -> io::Result<ClientTls<T>> {
        connect(self.config.clone(), self.name.clone(), io).await
    }
}

pub(super) async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    io: T,
) -> io::Result<ClientTls<T>> {
    let began = Instant::now();
    let mut stream = TlsConnector::from(config).connect(name, BigReads::new(io)).await?;
    stream.get_mut().0.handshake_took(began.elapsed());
    stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER_BYTES));
    Ok(stream)
}

/// Asks PostgreSQL's clients for a certificate of the user authority, and lets through one that is missing, expired or meant
/// for something else: those are refused after the StartupMessage, in words, where a TLS alert would only say "bad
/// certificate". Chain and signature are checked here.
#[derive(Debug)]
struct PeopleVerifier {
    anchors: TrustAnchors,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for PeopleVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // libpq has one certificate and sends it; a list would only tell strangers our authorities' names.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<CertificateDer<'static>> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        chains_to_user_ca(&chain, &self.anchors)
            .map(|()| ClientCertVerified::assertion())
            .map_err(|error| rustls::Error::InvalidCertificate(as_rustls(&error)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }
}

pub(super) fn as_rustls(error: &CertificateError) -> rustls::CertificateError {
    match error {
        CertificateError::Malformed { .. } => rustls::CertificateError::BadEncoding,
        CertificateError::Expired { .. } => rustls::CertificateError::Expired,
        CertificateError::NotYetValid { .. } => rustls::CertificateError::NotValidYet,
        CertificateError::WrongUsage { .. } => rustls::CertificateError::InvalidPurpose,
        _ => rustls::CertificateError::UnknownIssuer,
    }
}

/// Accepts a chain whose authority has a pinned key: the pin selects the trust anchor out of what is presented, then chain,
/// expiry and name are verified as always.
#[derive(Debug)]
pub(super) struct PinnedVerifier {
    pub(super) pins: Vec<CaPin>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let anchor = intermediates
            .iter()
            .find(|certificate| self.pins.iter().any(|pin| pin.matches(certificate)))
            .ok_or_else(|| {
                rustls::Error::General(
                    "the certificate is not of the pinned cluster: none of the authorities presented has the CA pin"
                        .to_owned(),
                )
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(anchor.clone().into_owned())?;
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
