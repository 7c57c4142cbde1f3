//! Nodes that join with a token, on auth; and the joining node's side of it.
//!
//! **Owns** nothing but the way of a join: token, certificate, audit, answer.
//! **Hears** `JoinCluster` from connections that speak the join protocol.
//! **Tells** the tokens to take a use; the certificate authority to issue a host certificate of the token's kinds and no other;
//! the audit trail, of every try.
//! **Never** asks for a certificate before the use of the token is taken on disk; never lets a node choose its own id.
//! **Ends** with the node. Permanent.

use super::address::{Address, Origin, Reply, message};
use super::ca::{IssueHost, Issued};
use super::host::{Behavior, Ctx, Handle};
use super::tokens::{GiveBackUse, TokenName, UseToken, list};
use super::trail::Trail;
use super::tunnel::answer;
use crate::audit::{EventBuilder, EventKind};
use crate::model::{ClusterName, NodeId, NodeKind, NodeName, Secret};
use crate::net::frames::{ReadFrameError, read_frame, refuse, write_frame};
use crate::net::tls::{HANDSHAKE_DEADLINE, ServerTls};
use crate::pki::{TrustAnchors, entropy};
use crate::protocol::tunnel::{Anchors, Frame, JoinAnswer, JoinToAuth};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// Token, certificate and audit together.
const ISSUE_DEADLINE: Duration = Duration::from_secs(10);
/// Each of them: a few writes.
const TOKEN_DEADLINE: Duration = Duration::from_secs(4);

/// A node asks for its first certificate.
pub struct JoinCluster {
    pub token: Secret<String>,
    pub name: NodeName,
    pub kinds: Vec<NodeKind>,
    pub csr: Vec<u8>,
    pub hosts: Vec<String>,
}

message!(JoinCluster => JoinAnswer);

pub struct Joins {
    use_token: Address<UseToken>,
    give_back: Address<GiveBackUse>,
    issue: Address<IssueHost>,
    cluster: ClusterName,
    anchors: TrustAnchors,
    trail: Trail,
}

impl Joins {
    pub fn new(
        (use_token, give_back): (Address<UseToken>, Address<GiveBackUse>),
        issue: Address<IssueHost>,
        cluster: ClusterName,
        anchors: TrustAnchors,
        trail: Trail,
    ) -> Self {
        Self {
            use_token,
            give_back,
            issue,
            cluster,
            anchors,
            trail,
        }
    }

    fn way(&self, origin: Origin) -> Way {
        Way {
            use_token: self.use_token.clone(),
            give_back: self.give_back.clone(),
            issue: self.issue.clone(),
            origin,
        }
    }
}

/// What one join asks of others.
struct Way {
    use_token: Address<UseToken>,
    give_back: Address<GiveBackUse>,
    issue: Address<IssueHost>,
    origin: Origin,
}

impl Way {
    /// The certificate of a node whose token admits it; else why not, in words for its operator.
    async fn walk(&self, ask: &JoinCluster) -> Result<(Issued, TokenName), String> {
        if ask.kinds.is_empty() {
            return Err("the node names no service that it runs".to_owned());
        }
        let use_token = UseToken {
            token: ask.token.clone(),
            kinds: ask.kinds.clone(),
        };
        let taken = self
            .use_token
            .ask(&self.origin, use_token, TOKEN_DEADLINE)
            .await
            .map_err(|error| error.to_string())?
            .map_err(|refused| refused.to_string())?;
        let host = IssueHost {
            // Auth names the node: one that could choose its id could choose another's.
            node: NodeId::from_random(entropy::bytes()),
            name: ask.name.clone(),
            kinds: ask.kinds.clone(),
            hosts: ask.hosts.clone(),
            csr: ask.csr.clone(),
        };
        // Where nobody knows whether it was issued, the use stays taken.
        let issued = self.issue.ask(&self.origin, host, TOKEN_DEADLINE).await;
        match issued.map_err(|error| error.to_string())? {
            Ok(issued) => Ok((issued, taken.name)),
            Err(error) => {
                let given_back = self.give_back.ask(&self.origin, GiveBackUse(taken), TOKEN_DEADLINE);
                if let Err(error) = given_back.await {
                    tracing::warn!(%error, "a use of a join token was not given back");
                }
                Err(error.to_string())
            }
        }
    }
}

impl Behavior for Joins {
    /// Strangers can reach this; a flood of them waits at their own deadline.
    const MAILBOX: usize = 64;
}

impl Handle<JoinCluster> for Joins {
    fn handle(&mut self, ask: JoinCluster, ctx: &mut Ctx<'_, Self>) -> Reply<JoinAnswer> {
        let (trail, way) = (self.trail.clone(), self.way(ctx.origin()));
        let (cluster, anchors) = (self.cluster.clone(), plain(&self.anchors));
        let (reply, promise) = Reply::later();
        let decided = async move {
            let joined = way.walk(&ask).await;
            match (&joined, trail.write(tried(&trail, &ask, &joined)).await) {
                (Ok((issued, _)), Ok(())) => JoinAnswer::Joined {
                    cluster,
                    certificate: issued.certificate.clone(),
                    anchors,
                },
                (Err(why), Ok(())) => JoinAnswer::Refused { why: why.clone() },
                (_, Err(refusal)) => JoinAnswer::Refused {
                    why: refusal.to_string(),
                },
            }
        };
        ctx.run_for_asker(decided, |_, answer, _| promise.keep(answer));
        reply
    }
}

/// The event of a try to join.
fn tried(trail: &Trail, ask: &JoinCluster, joined: &Result<(Issued, TokenName), String>) -> EventBuilder {
    let kind = match joined {
        Ok(_) => EventKind::NodeJoined,
        Err(_) => EventKind::NodeJoinFailed,
    };
    let event = trail
        .event(kind)
        .field("node_name", ask.name.as_str())
        .field("role", list(&ask.kinds))
        .field("method", "token")
        .field("success", joined.is_ok());
    match joined {
        Ok((_, token)) => event.field("token_name", token.to_string()),
        Err(why) => event.field("error", why.as_str()),
    }
}

pub fn plain(anchors: &TrustAnchors) -> Anchors {
    let der = |certificates: &[rustls_pki_types::CertificateDer<'_>]| certificates.iter().map(|c| c.to_vec()).collect();
    Anchors {
        user: der(&anchors.user),
        host: der(&anchors.host),
        db: der(&anchors.db),
        db_client: der(&anchors.db_client),
    }
}

/// Serves one connection of a joining node: one question, one answer.
pub async fn serve(mut tls: ServerTls, peer: SocketAddr, join: Address<JoinCluster>, trail: &Trail, origin: Origin) {
    let served = async {
        let frame = match read_frame::<JoinToAuth>(&mut tls).await {
            Ok(frame) => frame,
            Err(ReadFrameError::Io(error)) => return Err(error.to_string()),
            Err(ReadFrameError::Refused { header, error }) => {
                let why = error.to_string();
                // Nobody knows yet who it is.
                let event = trail
                    .event(EventKind::PeerRefused)
                    .field("addr.remote", peer.to_string())
                    .field("message", why.as_str());
                trail.note(event).await;
                let said = refuse::<JoinAnswer>(&mut tls, header.as_ref(), &why).await;
                let _gone = said.and(tls.shutdown().await);
                return Err(why);
            }
        };
        let Some(Frame {
            header,
            body:
                Some(JoinToAuth::Join {
                    token,
                    name,
                    mut kinds,
                    csr,
                    hosts,
                }),
        }) = frame
        else {
            return Err("no join request came".to_owned());
        };
        // A stranger's list may name a kind a thousand times; the audit log names it once.
        kinds.sort_unstable();
        kinds.dedup();
        let ask = JoinCluster {
            token: Secret::new(token),
            name,
            kinds,
            csr,
            hosts,
        };
        let body = join
            .ask(&origin, ask, ISSUE_DEADLINE)
            .await
            .unwrap_or_else(|error| JoinAnswer::Refused { why: error.to_string() });
        write_frame(&mut tls, &answer(header.id, body))
            .await
            .map_err(|error| error.to_string())?;
        tls.shutdown().await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::warn!(reason = why, "a join came to nothing"),
        Err(_) => tracing::warn!("a join was not done in time"),
    }
}

#[cfg(test)]
mod tests;
