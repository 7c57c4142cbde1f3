//! A node that is not auth: the identity it has, or the one that a token gets it.

use super::{DataDir, Identity, StartError, auth_route};
use crate::actors::identity::IdentityError;
use crate::actors::tokens::list;
use crate::config::Config;
use crate::model::{NodeKind, Secret, SharedClock, Timestamp};
use crate::net::auth_dialer::AuthDialer;
use crate::net::frames::{AnswerError, read_answer, write_frame};
use crate::pki::{CaPin, CertificateError, PrivateKey, TrustAnchors};
use crate::protocol::tunnel::{Anchors, Frame, FrameKind, Header, JoinAnswer, JoinToAuth};
use rustls_pki_types::CertificateDer;
use std::io;
use std::time::Duration;

/// A cluster that is just being started: auth and proxy may come up after the nodes that join. Then it is an error.
const JOIN_TRIES: u32 = 20;
const JOIN_PAUSE: Duration = Duration::from_secs(1);
/// The handshakes with proxy and auth, the token's use on disk and the signature; beyond it nobody is there.
const ASK_DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn identity(config: &Config, data_dir: &DataDir, clock: &SharedClock) -> Result<Identity, StartError> {
    match Identity::load(&data_dir.identity(), clock.now()) {
        Ok(Some(identity)) => return Ok(identity),
        Ok(None) => {}
        Err(IdentityError::Certificate { path, error }) => {
            return Err(StartError::Other(not_accepted(
                &path,
                &error,
                clock.now(),
                &config.services(),
            )));
        }
        Err(error) => return Err(error.into()),
    }
    let identity = join(config, clock).await?;
    identity.save(&data_dir.identity())?;
    tracing::info!(node = %identity.name, cluster = %identity.cluster, "joined");
    Ok(identity)
}

async fn join(config: &Config, clock: &SharedClock) -> Result<Identity, StartError> {
    let token = config.auth_token.as_ref().ok_or_else(|| {
        StartError::Other(format!(
            "this node has not joined a cluster yet and has no token: give --token, or set auth_token, with a token or the path \
             of a file that holds one; `{}` on the auth node makes one",
            add_command(&config.services())
        ))
    })?;
    let token = token.read()?;
    let pins = pins(config)?;
    let key = PrivateKey::generate()?;
    let dialer = AuthDialer::joining(auth_route(config)?, pins.clone(), clock)?;
    let mut tries = 0;
    loop {
        tries += 1;
        match ask(&dialer, config, &token, &key).await {
            Ok(JoinAnswer::Joined {
                certificate, anchors, ..
            }) => {
                let anchors = anchors_of(anchors);
                let leaf = CertificateDer::from(certificate);
                return Identity::new(leaf, key, anchors, clock.now()).map_err(|error| {
                    let why = match clocks_in(&error) {
                        Some(dates) => clocks_differ(&dates, clock.now()),
                        None => error.to_string(),
                    };
                    StartError::Other(format!("auth's answer to the join is not usable: {why}"))
                });
            }
            Ok(JoinAnswer::Refused { why }) => {
                return Err(StartError::Other(format!("the cluster refused this node: {why}")));
            }
            // What may be there in a moment is worth another try; a peer that is not who it should be is not.
            Err(error) if tries < JOIN_TRIES && may_come_up(&error) => {
                tracing::info!(address = %dialer, %error, "the cluster cannot be reached yet");
                tokio::time::sleep(JOIN_PAUSE).await;
            }
            Err(error) => {
                return Err(StartError::Other(format!(
                    "this node could not join the cluster via {dialer}: {}",
                    in_words(&error, &pins, clock.now())
                )));
            }
        }
    }
}

/// What the operator can do about a first contact that failed.
fn in_words(error: &io::Error, pins: &[CaPin], now: Timestamp) -> String {
    use rustls::{CertificateError as Bad, Error as Tls};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>());
    match tls {
        Some(Tls::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. })) => {
            clocks_differ("the certificate that the cluster shows is not valid yet", now)
        }
        Some(Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => {
            clocks_differ("the certificate that the cluster shows has expired", now)
        }
        // The one verdict of our own: none of the authorities presented has the pin.
        Some(Tls::General(_)) => {
            let pins: Vec<String> = pins.iter().map(ToString::to_string).collect();
            format!(
                "what answers there is another cluster, or the CA pin is wrong: it presents no authority with the pin {}; \
                 compare ca_pin with what `postern ctl status` prints on the auth node, and the address with that of this \
                 cluster's proxy; the token was not sent",
                pins.join(" or ")
            )
        }
        _ => error.to_string(),
    }
}

fn clocks_differ(what: &str, now: Timestamp) -> String {
    format!(
        "{what}, by this machine's clock, which says {now}: the clocks of this machine and of the cluster differ; set the one \
         that is wrong, and start this node again"
    )
}

/// Where a certificate that was issued a moment ago is not valid now, in words.
fn clocks_in(error: &CertificateError) -> Option<String> {
    match error {
        CertificateError::NotYetValid { from } => Some(format!("the certificate begins at {from}")),
        CertificateError::Expired { at } => Some(format!("the certificate ended at {at}")),
        _ => None,
    }
}

/// Why a node that has joined cannot start with the certificate that it keeps.
fn not_accepted(path: &str, error: &CertificateError, now: Timestamp, services: &[NodeKind]) -> String {
    let again = format!(
        "remove that directory and start with a new token (`{}` on the auth node)",
        add_command(services)
    );
    match error {
        CertificateError::Expired { at } => format!(
            "the host certificate of this node in {path} expired at {at}, and this machine's clock says {now}; if the clock is \
             right, {again}: the node joins anew"
        ),
        CertificateError::NotYetValid { from } => format!(
            "the host certificate of this node in {path} is not valid before {from}, and this machine's clock says {now}: the \
             clock is behind; set it, and start this node again"
        ),
        other => {
            format!("the host certificate of this node in {path} is not accepted: {other}; to join again, {again}")
        }
    }
}

fn add_command(services: &[NodeKind]) -> String {
    format!("postern ctl tokens add --type={}", list(services))
}

fn may_come_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotFound
    )
}

fn pins(config: &Config) -> Result<Vec<CaPin>, StartError> {
    let mut pins = Vec::new();
    for source in &config.ca_pins {
        for text in source.read()? {
            pins.push(text.parse()?);
        }
    }
    if pins.is_empty() {
        return Err(StartError::Other(
            "this node has no CA pin, so it cannot tell the cluster from a stranger: give --ca-pin, or \
             set ca_pin, with what `postern ctl status` prints on the auth node (only a node that joins through a proxy can do without)"
                .to_owned(),
        ));
    }
    Ok(pins)
}

async fn ask(dialer: &AuthDialer, config: &Config, token: &Secret<String>, key: &PrivateKey) -> io::Result<JoinAnswer> {
    let asked = tokio::time::timeout(ASK_DEADLINE, ask_without_deadline(dialer, config, token, key)).await;
    asked.unwrap_or_else(|_| {
        let why = format!("no answer to the join within {ASK_DEADLINE:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

async fn ask_without_deadline(
    dialer: &AuthDialer,
    config: &Config,
    token: &Secret<String>,
    key: &PrivateKey,
) -> io::Result<JoinAnswer> {
    let mut stream = dialer.dial().await?;
    let header = Header {
        id: 1,
        kind: FrameKind::Ask { deadline_ms: 15_000 },
        cause: None,
        connection: None,
    };
    let body = JoinToAuth::Join {
        token: token.expose().clone(),
        name: config.nodename.clone(),
        kinds: config.services(),
        csr: key.csr(config.nodename.as_str()).map_err(io::Error::other)?,
        hosts: if config.services().contains(&NodeKind::Proxy) {
            super::proxy::host_names(config)
        } else {
            Vec::new()
        },
    };
    write_frame(&mut stream, &Frame::new(header, body)).await?;
    read_answer(&mut stream).await.map_err(|error| match error {
        AnswerError::Io(error) => error,
        // It may be on its way down.
        AnswerError::Ended => io::ErrorKind::UnexpectedEof.into(),
        other => io::Error::other(format!("auth was asked to let this node join: {other}")),
    })
}

fn anchors_of(anchors: Anchors) -> TrustAnchors {
    let der = |certificates: Vec<Vec<u8>>| certificates.into_iter().map(CertificateDer::from).collect();
    TrustAnchors {
        user: der(anchors.user),
        host: der(anchors.host),
        db: der(anchors.db),
        db_client: der(anchors.db_client),
    }
}
