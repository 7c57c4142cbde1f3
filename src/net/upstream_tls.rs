//! TLS with PostgreSQL: whom the agent believes, and what it shows.
//!
//! | mode | chain | name | signature of the handshake |
//! |---|---|---|---|
//! | `verify-full` | yes | yes | yes |
//! | `verify-ca` | yes | no | yes |
//! | `insecure` | no | no | yes, which shows no more than that the other side holds the key of what it presents |

use super::cryptography;
use super::socket::Tcp;
use super::tls::{self, ClientTls, ClockTime, Credentials, TlsError, as_rustls};
use crate::model::{SharedClock, Timestamp};
use crate::pki::remembered::{Question, Remembered};
use crate::pki::{CertificateFacts, verify_db_server};
use crate::policy::DatabaseTlsMode;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::sync::Arc;

/// What PostgreSQL's certificate must be for a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTrust {
    pub mode: DatabaseTlsMode,
    /// The name that it must have in `verify-full`; sent as SNI in every mode.
    pub server_name: String,
    /// Whom it must be of; unused in `insecure`.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// How an agent proves a database user to PostgreSQL, and what it demands of it.
#[derive(Debug, Clone)]
pub struct UpstreamClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl UpstreamClient {
    /// One that shows `certificate`.
    ///
    /// # Errors
    /// An authority, the certificate or the name cannot be used.
    pub fn new(certificate: &Credentials, trust: &UpstreamTrust, clock: &SharedClock) -> Result<Self, TlsError> {
        Self::make(Some(certificate), trust, clock)
    }

    /// One that shows nothing and logs in as nobody: for looking at PostgreSQL's own certificate.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn anonymous(trust: &UpstreamTrust, clock: &SharedClock) -> Result<Self, TlsError> {
        Self::make(None, trust, clock)
    }

    fn make(shown: Option<&Credentials>, trust: &UpstreamTrust, clock: &SharedClock) -> Result<Self, TlsError> {
        let provider = p256_first();
        let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(ClockTime(clock.clone())))
            .with_safe_default_protocol_versions()?;
        let verifier = Arc::new(Verifier::new(trust, &provider)?);
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match shown {
            Some(certificate) => {
                builder.with_client_auth_cert(certificate.chain.clone(), certificate.key.to_rustls())?
            }
            None => builder.with_no_client_auth(),
        };
        // PostgreSQL has no tickets; a server that hands some out is verified each time all the same.
        config.resumption = rustls::client::Resumption::disabled();
        let bare = trust.server_name.trim_matches(['[', ']']);
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::Name(bare.to_owned()))?,
        })
    }

    pub async fn connect(&self, tcp: Tcp) -> io::Result<ClientTls<Tcp>> {
        tls::connect(self.config.clone(), self.name.clone(), tcp).await
    }
}

/// PostgreSQL's default `ssl_ecdh_curve` is prime256v1; offering it first saves the round trip of a HelloRetryRequest.
fn p256_first() -> Arc<CryptoProvider> {
    let mut provider = cryptography::provider();
    Arc::make_mut(&mut provider)
        .kx_groups
        .sort_by_key(|group| group.name() != rustls::NamedGroup::secp256r1);
    provider
}

/// Chains that PostgreSQL servers have shown and that were found good, and when all their certificates are valid.
static GOOD: Remembered<(Timestamp, Timestamp)> = Remembered::nothing();

/// Verifies what the database's mode says of a chain, once, and again outside of its certificates' dates; the handshake's signature always.
#[derive(Debug)]
struct Verifier {
    rule: Rule,
    /// The rule and the authorities, as a part of the question.
    how: Question,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Rule {
    ChainAndName(Arc<WebPkiServerVerifier>),
    Chain(Vec<CertificateDer<'static>>),
    /// Any certificate will do.
    Nothing,
}

impl Verifier {
    fn new(trust: &UpstreamTrust, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let (rule, named): (_, &[u8]) = match trust.mode {
            DatabaseTlsMode::VerifyFull => {
                let roots = tls::roots(&trust.authorities)?;
                let strict = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
                (Rule::ChainAndName(strict), b"verify-full")
            }
            DatabaseTlsMode::VerifyCa => (Rule::Chain(trust.authorities.clone()), b"verify-ca"),
            DatabaseTlsMode::Insecure => (Rule::Nothing, b"insecure"),
        };
        let authorities = trust.authorities.iter().map(|certificate| &certificate[..]);
        Ok(Self {
            rule,
            how: Question::of(std::iter::once(named).chain(authorities)),
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

/// When all of these are valid; `None` where one cannot be read here.
fn validity(chain: &[&CertificateDer<'_>]) -> Option<(Timestamp, Timestamp)> {
    let dates = |certificate| CertificateFacts::read(certificate).map(|facts| (facts.valid_from, facts.valid_until));
    let all: Vec<_> = chain
        .iter()
        .map(|certificate| dates(certificate))
        .collect::<Result<_, _>>()
        .ok()?;
    all.into_iter()
        .reduce(|(from, until), (later, earlier)| (from.max(later), until.min(earlier)))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
        let name = server_name.to_str();
        let asked = [self.how.as_bytes(), name.as_bytes()];
        let question = Question::of(
            asked
                .into_iter()
                .chain(chain.iter().map(|certificate| &certificate[..])),
        );
        let at = Timestamp::from_secs(i64::try_from(now.as_secs()).unwrap_or(i64::MAX / 1_000_000));
        let known = GOOD.answer(&question);
        if known.is_some_and(|(from, until)| (from..=until).contains(&at)) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.rule {
            Rule::ChainAndName(strict) => {
                strict.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
            }
            Rule::Chain(authorities) => {
                let chain: Vec<_> = chain.iter().copied().cloned().collect();
                verify_db_server(&chain, authorities, None, at)
                    .map_err(|error| rustls::Error::InvalidCertificate(as_rustls(&error)))?;
            }
            Rule::Nothing => return Ok(ServerCertVerified::assertion()),
        }
        if let Some(valid) = validity(&chain) {
            GOOD.keep(question, valid);
        }
        Ok(ServerCertVerified::assertion())
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
}

#[cfg(test)]
#[path = "upstream_tls_tests.rs"]
mod tests;
