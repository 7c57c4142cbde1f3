//! The nodes that talk to auth, on auth.
//!
//! **Owns** one link for each connection of a node: a multiplexer, each stream of which carries one question of the node's (for
//! the policy, the news from then on) or of auth's (`node_questions`).
//! **Hears** `AdoptLink` from connections that turned out to be a node's.
//! **Tells** the actors of auth what nodes ask, with the node's identity from its certificate; the audit trail, of messages
//! that a peer may not send.
//! **Never** reads a message in another enum than that of the peer's kind.
//! **Ends** with the node. A link is temporary: the node comes again.

use super::account_words;
use super::accounts::{AcceptInvite, AccountError, LookAtInvite};
use super::address::Reply;
use super::address::{Address, Origin, message};
use super::audit::StoreLines;
use super::ca::{CaError, DbServerIssued, IssueDbClient, IssueHost, IssueOwnDbServer, Issued};
use super::host::{Behavior, Ctx, Handle, Runtime, Spec, spawn_here};
use super::inventory::{InventoryView, NodeHeard, NodeRecord};
use super::node_questions::LinkedNodes;
use super::policy::PolicyView;
use super::rbac::Published;
use super::trail::Trail;
use super::tunnel::{answer, refusal_event};
use crate::model::{ConnectionId, MessageId, NodeKind};
use crate::net::frames::{ReadFrameError, decode, read_frame_bytes, refuse, write_frame};
use crate::net::mux::{self, Inbound, MuxSide, MuxStream, Window};
use crate::net::tls::{HANDSHAKE_DEADLINE, ServerTls};
use crate::pki::HostIdentity;
use crate::policy::PolicySnapshot;
use crate::protocol::tunnel::{
    AuthToNode, DbToAuth, Dialect, Frame, FrameKind, Header, NodeReport, ProxyToAuth, Wire, frame,
};
use crate::telemetry::count::Present;
use crate::telemetry::label::Label;
use crate::telemetry::metrics::METRICS;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const ASK_DEADLINE: Duration = Duration::from_secs(15);
/// How often a node hears that its rules are the newest.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);

/// A connection that has proved to be a node's.
pub struct AdoptLink {
    pub stream: ServerTls,
    pub peer: HostIdentity,
    pub runtime: Runtime,
}
message!(AdoptLink => ());

/// What links ask on behalf of their nodes.
pub struct LinkParts {
    pub issue: Address<IssueDbClient>,
    pub renew: Address<IssueHost>,
    pub issue_db_server: Address<IssueOwnDbServer>,
    pub store_lines: Address<StoreLines>,
    pub heard: Address<NodeHeard>,
    pub look_at: Address<LookAtInvite>,
    pub accept: Address<AcceptInvite>,
    pub inventory: InventoryView,
    pub published: Published,
    pub policy_max_age: Duration,
    pub policy: PolicyView,
    pub trail: Trail,
    /// Written with each link, so that auth can ask the node at its other end.
    pub linked: LinkedNodes,
}

pub struct Links {
    parts: Arc<LinkParts>,
    /// Of the links so far. Outside of the state, as they are: no two have the same name.
    links: Arc<AtomicU64>,
}

impl Links {
    pub fn new(parts: Arc<LinkParts>, links: Arc<AtomicU64>) -> Self {
        Self { parts, links }
    }
}

impl Behavior for Links {
    /// One message for each connection of a node: room for all nodes of a large cluster after a restart.
    const MAILBOX: usize = 1024;
}

impl Handle<AdoptLink> for Links {
    fn handle(&mut self, adopt: AdoptLink, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let number = self.links.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("link#{}-{number}", adopt.peer.node_name);
        tracing::info!(node = %adopt.peer.node_name, actor = %name, "node connected");
        let (parts, peer) = (self.parts.clone(), adopt.peer);
        let mut stream = Some(adopt.stream);
        ctx.spawn_child(&adopt.runtime, Spec::temporary(&name), move || Link {
            stream: stream.take(),
            peer: peer.clone(),
            parts: parts.clone(),
            alive: Arc::new(()),
            _up: METRICS.links.enter(),
        });
        Reply::Now(())
    }
}

/// One node's connection.
struct Link {
    stream: Option<ServerTls>,
    peer: HostIdentity,
    parts: Arc<LinkParts>,
    /// Dropped with the link.
    alive: Arc<()>,
    _up: Present,
}

impl Link {
    fn take_streams(mut inbound: Inbound, ctx: &mut Ctx<'_, Self>) {
        ctx.run(
            async move { inbound.recv().await.map(|stream| (stream, inbound)) },
            |link, next, ctx| {
                if let Some((stream, inbound)) = next {
                    let asked = Asked {
                        peer: link.peer.clone(),
                        parts: link.parts.clone(),
                        link: Arc::downgrade(&link.alive),
                        origin: ctx.origin(),
                    };
                    // A fault in one question ends that question.
                    ctx.run_for_asker(asked.serve(stream), |_, (), _| {});
                    Self::take_streams(inbound, ctx);
                }
            },
        );
    }
}

impl Behavior for Link {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        let Some(stream) = self.stream.take() else {
            return ctx.stop();
        };
        let (mux, inbound, driver) = mux::start(stream, MuxSide::Accepted, Window::FIXED);
        let removal = self.parts.policy.clone().removal_of(self.peer.node_id);
        let to_cut = mux.clone();
        ctx.run(removal, move |link, (), _| {
            tracing::warn!(node = %link.peer.node_name, "node removed; its link is cut");
            to_cut.kill();
        });
        let linked = self.parts.linked.enter(&self.peer, mux);
        ctx.run(spawn_here(driver).join(), move |link, why, ctx| {
            drop(linked);
            tracing::info!(node = %link.peer.node_name, reason = ?why, "node disconnected");
            ctx.stop();
        });
        ctx.state("up");
        Self::take_streams(inbound, ctx);
    }
}

/// One stream of a node.
struct Asked {
    peer: HostIdentity,
    parts: Arc<LinkParts>,
    link: Weak<()>,
    origin: Origin,
}

/// What both kinds of node may ask, in one form.
enum Question {
    WatchPolicy { have: Option<u64> },
    Heartbeat(NodeRecord),
    Store(StoreLines),
    Issue(IssueDbClient),
    Renew(IssueHost),
    IssueServer(IssueOwnDbServer),
    LookAt(LookAtInvite),
    Accept(AcceptInvite),
}

impl Question {
    /// Its name in the protocol.
    fn label(&self) -> Label {
        Label::of(match self {
            Self::WatchPolicy { .. } => "WatchPolicy",
            Self::Heartbeat(_) => "Heartbeat",
            Self::Store(_) => "ShipAudit",
            Self::Issue(_) => "IssueDbClient",
            Self::Renew(_) => "RenewHost",
            Self::IssueServer(_) => "IssueDbServer",
            Self::LookAt(_) => "LookAtInvite",
            Self::Accept(_) => "AcceptInvite",
        })
    }
}

impl Asked {
    async fn serve(mut self, mut stream: MuxStream) {
        if let Err(error) = self.answer_stream(&mut stream).await {
            tracing::warn!(node = %self.peer.node_name, %error, "a node's question was not answered");
        }
        let _gone = stream.shutdown().await;
    }

    async fn answer_stream(&mut self, stream: &mut MuxStream) -> io::Result<()> {
        let max = DbToAuth::MAX_BYTES.max(ProxyToAuth::MAX_BYTES) + crate::protocol::tunnel::MAX_HEADER_BYTES;
        let read = read_frame_bytes(stream, Dialect::DbToAuth, max);
        let read = tokio::time::timeout(HANDSHAKE_DEADLINE, read).await;
        let question = match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
            Ok(Some(bytes)) => self.understand(&bytes),
            Ok(None) => return Ok(()),
            Err(error) => Err(error),
        };
        match question {
            Ok((header, question)) => {
                self.origin.connection = header.connection.map(|id| ConnectionId::from_random(id.to_be_bytes()));
                let asker = self.asker();
                self.origin.arrived(question.label(), asker, Some(MessageId(header.id)));
                self.carry_out(header.id, question, stream).await
            }
            Err(ReadFrameError::Io(error)) => Err(error),
            Err(ReadFrameError::Refused { header, error }) => {
                let why = error.to_string();
                tracing::warn!(node = %self.peer.node_name, reason = why, "message refused");
                self.parts
                    .trail
                    .note(refusal_event(&self.parts.trail, &self.peer, &why))
                    .await;
                refuse::<AuthToNode>(stream, header.as_ref(), &why).await
            }
        }
    }

    /// As the views name it.
    fn asker(&self) -> Arc<str> {
        let kind = if self.peer.kinds.contains(&NodeKind::Db) {
            "agent"
        } else {
            "proxy"
        };
        format!("{kind} {}", self.peer.node_name).into()
    }

    /// Decodes by the enum of the peer's kind; what says that it is of another is refused by that very decoding.
    fn understand(&self, bytes: &[u8]) -> Result<(Header, Question), ReadFrameError> {
        let is = |kind| self.peer.kinds.contains(&kind);
        let says_proxy = frame::dialect_of(bytes) == Some(Dialect::ProxyToAuth as u8);
        if is(NodeKind::Proxy) && (says_proxy || !is(NodeKind::Db)) {
            let Frame { header, body } = decode::<ProxyToAuth>(bytes)?;
            let question = body.and_then(|body| self.of_proxy(body));
            let question = question.ok_or_else(|| no_question(&header))?;
            Ok((header, question))
        } else {
            let Frame { header, body } = decode::<DbToAuth>(bytes)?;
            let connection = ConnectionId::from_random(header.connection.unwrap_or(0).to_be_bytes());
            let question = body.and_then(|body| self.of_db(body, connection));
            let question = question.ok_or_else(|| no_question(&header))?;
            Ok((header, question))
        }
    }

    fn of_proxy(&self, body: ProxyToAuth) -> Option<Question> {
        Some(match body {
            ProxyToAuth::WatchPolicy { have } => Question::WatchPolicy { have },
            ProxyToAuth::Heartbeat { report } => Question::Heartbeat(self.record(report)),
            ProxyToAuth::ShipAudit {
                spool,
                first_seq,
                lines,
            } => Question::Store(self.lines(&spool, first_seq, lines)),
            ProxyToAuth::RenewHost { csr, hosts } => self.renewal(csr, hosts),
            ProxyToAuth::LookAtInvite { token } => Question::LookAt(LookAtInvite { token: token.0 }),
            ProxyToAuth::AcceptInvite {
                token,
                password,
                code,
                client_address,
            } => Question::Accept(AcceptInvite {
                token: token.0,
                password: password.0,
                code: code.0,
                client_address,
            }),
            // The answer to a question of auth's, which has a stream of its own.
            ProxyToAuth::Inspected { .. } | ProxyToAuth::NotInspected { .. } => return None,
        })
    }

    fn of_db(&self, body: DbToAuth, connection: ConnectionId) -> Option<Question> {
        Some(match body {
            DbToAuth::WatchPolicy { have } => Question::WatchPolicy { have },
            DbToAuth::Heartbeat { report } => Question::Heartbeat(self.record(report)),
            DbToAuth::ShipAudit {
                spool,
                first_seq,
                lines,
            } => Question::Store(self.lines(&spool, first_seq, lines)),
            DbToAuth::IssueDbClient {
                person,
                service,
                db_user,
                db_name,
                csr,
            } => Question::Issue(IssueDbClient {
                agent: self.peer.node_id,
                connection,
                person,
                service,
                db_user,
                db_name,
                csr,
            }),
            DbToAuth::RenewHost { csr, hosts } => self.renewal(csr, hosts),
            DbToAuth::IssueDbServer {
                service,
                hosts,
                ttl_secs,
                csr,
            } => Question::IssueServer(IssueOwnDbServer {
                agent: self.peer.node_id,
                service,
                hosts,
                ttl: Duration::from_secs(ttl_secs),
                csr,
            }),
            DbToAuth::Inspected { .. } | DbToAuth::NotInspected { .. } => return None,
        })
    }

    /// For the node and the kinds that its present certificate names, whatever it asks for.
    fn renewal(&self, csr: Vec<u8>, hosts: Vec<String>) -> Question {
        Question::Renew(IssueHost {
            node: self.peer.node_id,
            name: self.peer.node_name.clone(),
            kinds: self.peer.kinds.clone(),
            hosts,
            csr,
        })
    }

    /// What a node says of services that are not in its certificate is not listened to.
    fn record(&self, mut report: NodeReport) -> NodeRecord {
        if !self.peer.kinds.contains(&NodeKind::Db) {
            report.databases.clear();
            report.health.clear();
        }
        if !self.peer.kinds.contains(&NodeKind::Proxy) {
            report.proxy_addresses.clear();
        }
        NodeRecord {
            node: self.peer.node_id,
            name: self.peer.node_name.clone(),
            kinds: self.peer.kinds.clone(),
            report,
        }
    }

    /// A node's spool is known by the node, too: none can write into another's sequence.
    fn lines(&self, spool: &str, first_seq: u64, lines: Vec<String>) -> StoreLines {
        StoreLines {
            spool: format!("{}-{spool}", self.peer.node_id),
            first_seq,
            lines,
        }
    }

    async fn carry_out(&self, id: u64, question: Question, stream: &mut MuxStream) -> io::Result<()> {
        let body = match question {
            Question::WatchPolicy { have } => return self.tell_policy(have, stream).await,
            Question::Heartbeat(record) => {
                let link = self.link.clone();
                let heard = NodeHeard { record, link };
                match self.parts.heard.ask(&self.origin, heard, ASK_DEADLINE).await {
                    Ok(Ok(())) => AuthToNode::Heard {
                        proxies: self.parts.inventory.proxies(),
                    },
                    Ok(Err(twice)) => {
                        tracing::warn!(node = %self.peer.node_name, "a second process has this node's identity");
                        AuthToNode::RunsTwice { why: twice.to_string() }
                    }
                    Err(error) => AuthToNode::Declined { why: error.to_string() },
                }
            }
            Question::Store(lines) => match self.parts.store_lines.ask(&self.origin, lines, ASK_DEADLINE).await {
                Ok(Ok(last_seq)) => AuthToNode::AuditStored { last_seq },
                Ok(Err(why)) => AuthToNode::Declined { why },
                Err(error) => AuthToNode::Declined { why: error.to_string() },
            },
            Question::Issue(ask) => match self.parts.issue.ask(&self.origin, ask, ASK_DEADLINE).await {
                Ok(Ok(Issued { certificate, not_after })) => AuthToNode::DbClientIssued { certificate, not_after },
                Ok(Err(error)) => unsigned(error),
                Err(error) => unsigned(CaError::AuthAway(error.to_string())),
            },
            Question::IssueServer(ask) => match self.parts.issue_db_server.ask(&self.origin, ask, ASK_DEADLINE).await {
                Ok(Ok(DbServerIssued {
                    certificate,
                    not_after,
                    clients,
                })) => AuthToNode::DbServerIssued {
                    certificate,
                    not_after,
                    clients,
                },
                Ok(Err(error)) => unsigned(error),
                Err(error) => unsigned(CaError::AuthAway(error.to_string())),
            },
            Question::Renew(ask) => match self.parts.renew.ask(&self.origin, ask, ASK_DEADLINE).await {
                Ok(Ok(Issued { certificate, not_after })) => AuthToNode::HostIssued { certificate, not_after },
                Ok(Err(error)) => unsigned(error),
                Err(error) => unsigned(CaError::AuthAway(error.to_string())),
            },
            Question::LookAt(ask) => match self.parts.look_at.ask(&self.origin, ask, ASK_DEADLINE).await {
                Ok(Ok(invitation)) => account_words::shown(invitation),
                Ok(Err(error)) => account_words::refused(&error),
                Err(error) => account_words::refused(&AccountError::Away(error.to_string())),
            },
            Question::Accept(ask) => match self.parts.accept.ask(&self.origin, ask, ASK_DEADLINE).await {
                Ok(Ok(())) => AuthToNode::InviteAccepted,
                Ok(Err(error)) => account_words::refused(&error),
                Err(error) => account_words::refused(&AccountError::Away(error.to_string())),
            },
        };
        write_frame(stream, &answer(id, body)).await
    }

    /// Sends every snapshot that the node does not have, and in between, each second, that it has the newest. Ends when the
    /// node closes the stream or is gone.
    async fn tell_policy(&self, mut have: Option<u64>, stream: &mut MuxStream) -> io::Result<()> {
        let mut published = self.parts.published.subscribe();
        loop {
            let newest = published.borrow_and_update().clone();
            if let Some(snapshot) = newest {
                let body = if have == Some(snapshot.version) {
                    AuthToNode::PolicyConfirmed {
                        version: snapshot.version,
                    }
                } else {
                    publication(&snapshot, self.parts.policy_max_age)
                };
                write_frame(stream, &tell(body)).await?;
                have = Some(snapshot.version);
            }
            // Either way there is something to say: a new snapshot, or that there is none.
            let _news = tokio::time::timeout(CONFIRM_EVERY, published.changed()).await;
        }
    }
}

/// A certificate that was not signed: decided against, or nobody could decide.
fn unsigned(error: CaError) -> AuthToNode {
    match error {
        CaError::Declined(why) => AuthToNode::Declined { why },
        CaError::AuthAway(why) | CaError::NotUnderstood(why) => AuthToNode::Undecided { why },
    }
}

fn publication(snapshot: &PolicySnapshot, max_age: Duration) -> AuthToNode {
    AuthToNode::PolicyPublished {
        version: snapshot.version,
        published_at: snapshot.published_at,
        documents: snapshot.to_documents(),
        max_age_secs: u32::try_from(max_age.as_secs()).unwrap_or(u32::MAX),
    }
}

fn tell(body: AuthToNode) -> Frame<AuthToNode> {
    let header = Header {
        id: 0,
        kind: FrameKind::Tell,
        cause: None,
        connection: None,
    };
    Frame::new(header, body)
}

fn no_question(header: &Header) -> ReadFrameError {
    ReadFrameError::Refused {
        header: Some(header.clone()),
        error: crate::protocol::tunnel::FrameError::Header,
    }
}
