//! This node's host certificate.
//!
//! **Owns** the identity that is in use, and the directory that it is kept in.
//! **Hears** nothing; it looks at the clock.
//! **Tells** the certificate authority (beside it, or over the link) when half of the certificate's life is over; whoever holds
//! an [`IdentityView`], by reading: new handshakes use the new certificate, connections that are open are not touched.
//! **Never** lets its key leave the node: auth is sent a request and signs it.
//! **Ends** with the node. What it holds is kept outside of its state, so that a rebuild loses nothing.

pub use super::kept_identity::{Identity, IdentityError};

use super::address::{Address, Origin};
use super::ca::{IssueHost, Issued};
use super::host::{Behavior, Ctx};
use crate::model::{NodeKind, SharedClock, Timestamp};
use crate::net::tls::{ServerSides, TlsError};
use crate::net::web_certificates::WebCertificates;
use crate::pki::PrivateKey;
use rustls_pki_types::CertificateDer;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Reading the clock costs nothing, and a machine that slept or whose clock was set is noticed at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Half of a certificate's life is three and a half days: a minute between tries is often enough, and no burden on auth.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const ISSUE_DEADLINE: Duration = Duration::from_secs(15);
/// From here on a certificate that could not be renewed is worth an error in the log and not a warning.
const URGENT_BEFORE: Duration = Duration::from_secs(24 * 3600);

/// An identity and what is made of it.
#[derive(Debug)]
pub struct InUse {
    pub identity: Identity,
    pub sides: ServerSides,
}

impl InUse {
    pub fn new(identity: Identity, web: &WebCertificates, clock: &SharedClock) -> Result<Self, TlsError> {
        let sides = ServerSides::new(&identity.credentials, web, &identity.anchors, clock)?;
        Ok(Self { identity, sides })
    }
}

/// Where the identity in use is kept: made once per node, outside of the actor.
#[derive(Debug, Clone)]
pub struct IdentityStock(Arc<watch::Sender<Arc<InUse>>>);

impl IdentityStock {
    pub fn new(in_use: InUse) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(in_use))))
    }

    pub fn view(&self) -> IdentityView {
        IdentityView(self.0.subscribe())
    }
}

/// Reads the identity in use.
#[derive(Debug, Clone)]
pub struct IdentityView(watch::Receiver<Arc<InUse>>);

impl IdentityView {
    pub fn in_use(&self) -> Arc<InUse> {
        self.0.borrow().clone()
    }
}

/// What a renewal needs to know of this node.
pub struct IdentityParts {
    pub stock: IdentityStock,
    pub directory: PathBuf,
    pub kinds: Vec<NodeKind>,
    /// Names that clients reach a proxy by.
    pub hosts: Vec<String>,
    /// What the proxy presents to people.
    pub web: WebCertificates,
    pub issue: Address<IssueHost>,
    pub clock: SharedClock,
}

pub struct IdentityKeeper {
    parts: Arc<IdentityParts>,
}

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Ask(#[from] super::address::AskError),
    #[error(transparent)]
    Ca(#[from] super::ca::CaError),
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    #[error("the renewed certificate is not accepted: {0}")]
    Certificate(#[from] crate::pki::CertificateError),
    #[error(transparent)]
    Kept(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl IdentityKeeper {
    pub fn new(parts: Arc<IdentityParts>) -> Self {
        Self { parts }
    }

    fn look_later(&self, wait: Duration, ctx: &mut Ctx<'_, Self>) {
        ctx.after(wait, |keeper, ctx| {
            if keeper.is_due() {
                keeper.renew(ctx);
            } else {
                keeper.look_later(LOOK_EVERY, ctx);
            }
        });
    }

    /// Less than half of the certificate's life is left.
    fn is_due(&self) -> bool {
        let until = self.parts.stock.0.borrow().identity.valid_until;
        let left = until.since(self.parts.clock.now());
        left < super::ca::HOST_TTL / 2
    }

    fn renew(&self, ctx: &mut Ctx<'_, Self>) {
        let (parts, origin) = (self.parts.clone(), ctx.origin());
        ctx.run(
            async move { renew(&parts, &origin).await },
            |keeper, renewed, ctx| match renewed {
                Ok(until) => {
                    tracing::info!(%until, "host certificate renewed");
                    keeper.look_later(LOOK_EVERY, ctx);
                }
                Err(error) => {
                    keeper.complain(&error);
                    keeper.look_later(RETRY_AFTER, ctx);
                }
            },
        );
    }

    fn complain(&self, error: &RenewError) {
        let until = self.parts.stock.0.borrow().identity.valid_until;
        if until.since(self.parts.clock.now()) < URGENT_BEFORE {
            tracing::error!(%until, %error, "the host certificate ends soon and could not be renewed");
        } else {
            tracing::warn!(%until, %error, retry_in = ?RETRY_AFTER, "the host certificate could not be renewed yet");
        }
    }
}

async fn renew(parts: &IdentityParts, origin: &Origin) -> Result<Timestamp, RenewError> {
    let old = parts.stock.0.borrow().clone();
    let key = PrivateKey::generate()?;
    let ask = IssueHost {
        node: old.identity.node,
        name: old.identity.name.clone(),
        kinds: parts.kinds.clone(),
        hosts: parts.hosts.clone(),
        csr: key.csr(old.identity.name.as_str())?,
    };
    let Issued { certificate, .. } = parts.issue.ask(origin, ask, ISSUE_DEADLINE).await??;
    let leaf = CertificateDer::from(certificate);
    let identity = Identity::new(leaf, key, old.identity.anchors.clone(), parts.clock.now())?;
    // On disk first: a node that ends now starts with the certificate that it was given last.
    identity.save(&parts.directory)?;
    let until = identity.valid_until;
    parts
        .stock
        .0
        .send_replace(Arc::new(InUse::new(identity, &parts.web, &parts.clock)?));
    Ok(until)
}

impl Behavior for IdentityKeeper {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.look_later(LOOK_EVERY, ctx);
    }
}
