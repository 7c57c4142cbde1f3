//! Nodes that join with a token, on auth; and the joining node's side of it.
//!
//! **Owns** the tokens of auth's configuration.
//! **Hears** `JoinCluster` from connections that speak the join protocol.
//! **Tells** the certificate authority to issue a host certificate of the token's kinds and no other; the audit trail, of every
//! try.
//! **Never** says whether a token exists; compares in constant time.
//! **Ends** with the node. Permanent; its state is the configuration.

use super::address::{Address, Origin, Reply, message};
use super::ca::{IssueHost, Issued};
use super::host::{Behavior, Ctx, Handle};
use super::trail::Trail;
use super::tunnel::answer;
use crate::audit::EventKind;
use crate::model::{ClusterName, NodeId, NodeKind, NodeName, Secret};
use crate::net::frames::{read_frame, write_frame};
use crate::net::tls::{HANDSHAKE_DEADLINE, ServerTls};
use crate::pki::{TrustAnchors, entropy};
use crate::protocol::tunnel::{Anchors, Frame, JoinAnswer, JoinToAuth};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const ISSUE_DEADLINE: Duration = Duration::from_secs(10);

/// A token, and what it lets a node be.
#[derive(Debug, Clone)]
pub struct Token {
    pub kinds: Vec<NodeKind>,
    pub secret: Secret<String>,
}

impl Token {
    /// Hashes first, so that neither the length nor a common beginning shows in the time it takes.
    fn matches(&self, presented: &str) -> bool {
        let ours = digest(&SHA256, self.secret.expose().as_bytes());
        let theirs = digest(&SHA256, presented.as_bytes());
        verify_slices_are_equal(ours.as_ref(), theirs.as_ref()).is_ok()
    }
}

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
    tokens: Arc<Vec<Token>>,
    issue: Address<IssueHost>,
    cluster: ClusterName,
    anchors: TrustAnchors,
    trail: Trail,
}

impl Joins {
    pub fn new(
        tokens: Arc<Vec<Token>>,
        issue: Address<IssueHost>,
        cluster: ClusterName,
        anchors: TrustAnchors,
        trail: Trail,
    ) -> Self {
        Self {
            tokens,
            issue,
            cluster,
            anchors,
            trail,
        }
    }

    /// Why this node may not join, in words that tell a stranger nothing about tokens.
    fn objection(&self, ask: &JoinCluster) -> Option<String> {
        let token = self.tokens.iter().find(|token| token.matches(ask.token.expose()));
        let Some(token) = token else {
            return Some("the token is not valid; see auth_service: tokens in auth's configuration".to_owned());
        };
        let more = ask.kinds.iter().find(|kind| !token.kinds.contains(kind));
        match more {
            Some(kind) => Some(format!(
                "the token is not for a node of type {kind}; use a token of that type"
            )),
            None if ask.kinds.is_empty() => Some("the node names no service that it runs".to_owned()),
            None => None,
        }
    }
}

impl Behavior for Joins {
    /// Strangers can reach this; a flood of them waits at their own deadline.
    const MAILBOX: usize = 64;
}

impl Handle<JoinCluster> for Joins {
    fn handle(&mut self, ask: JoinCluster, ctx: &mut Ctx<'_, Self>) -> Reply<JoinAnswer> {
        let objection = self.objection(&ask);
        let (trail, issue, origin) = (self.trail.clone(), self.issue.clone(), ctx.origin());
        let (cluster, anchors) = (self.cluster.clone(), plain(&self.anchors));
        let (reply, promise) = Reply::later();
        let decided = async move {
            let joined = match objection {
                Some(why) => Err(why),
                None => issue_host(&issue, &ask, &origin).await,
            };
            let kinds: Vec<String> = ask.kinds.iter().map(ToString::to_string).collect();
            let kind = if joined.is_ok() {
                EventKind::NodeJoined
            } else {
                EventKind::NodeJoinFailed
            };
            let mut event = trail
                .event(kind)
                .field("node_name", ask.name.as_str())
                .field("role", kinds.join(","))
                .field("method", "token")
                .field("success", joined.is_ok());
            if let Err(why) = &joined {
                event = event.field("error", why.as_str());
            }
            match (joined, trail.write(event).await) {
                (Ok(issued), Ok(())) => JoinAnswer::Joined {
                    cluster,
                    certificate: issued.certificate,
                    anchors,
                },
                (Err(why), Ok(())) => JoinAnswer::Refused { why },
                (_, Err(refusal)) => JoinAnswer::Refused {
                    why: refusal.to_string(),
                },
            }
        };
        ctx.run(decided, |_, answer, _| promise.keep(answer));
        reply
    }
}

async fn issue_host(issue: &Address<IssueHost>, ask: &JoinCluster, origin: &Origin) -> Result<Issued, String> {
    let host = IssueHost {
        // Auth names the node: one that could choose its id could choose another's.
        node: NodeId::from_random(entropy::bytes()),
        name: ask.name.clone(),
        kinds: ask.kinds.clone(),
        hosts: ask.hosts.clone(),
        csr: ask.csr.clone(),
    };
    issue
        .ask(origin, host, ISSUE_DEADLINE)
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
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
pub async fn serve(mut tls: ServerTls, join: Address<JoinCluster>, origin: Origin) {
    let served = async {
        let frame = read_frame::<JoinToAuth>(&mut tls)
            .await
            .map_err(|error| error.to_string())?;
        let Some(Frame {
            header,
            body:
                Some(JoinToAuth::Join {
                    token,
                    name,
                    kinds,
                    csr,
                    hosts,
                }),
        }) = frame
        else {
            return Err("no join request came".to_owned());
        };
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
        Ok(Err(why)) => tracing::warn!(why, "a join came to nothing"),
        Err(_) => tracing::warn!("a join was not done in time"),
    }
}
