//! Auth, as a remote actor: the link of a node to it.
//!
//! **Owns** the connection to auth, made again whenever it is lost.
//! **Hears** what the rooms of this node ask of auth: `IssueDbClient`, `StoreLines`. Each question is a stream of its own.
//! **Tells** the policy actor what auth publishes; auth, every two seconds, that this node lives, and what it asks about it.
//! **Never** repeats a question by itself: whoever asked knows whether a repeat is harmless.
//! **Ends** with the node. Permanent.

use super::account_words;
use super::accounts::{AcceptInvite, AccountError, Invitation, LookAtInvite};
use super::address::{Address, Origin, Reply};
use super::audit::StoreLines;
use super::ca::{CaError, DbServerIssued, IssueDbClient, IssueHost, IssueOwnDbServer, Issued};
use super::host::{Behavior, Ctx, Handle, TaskGuard, spawn_here};
use super::identity::IdentityView;
use super::inspector::Inspector;
use super::inventory::HEARTBEAT_EVERY;
use super::node_questions::answer_auth;
use super::peers::{AUTH, PeerQuestion};
use super::policy::{PolicyConfirmed, PolicyReceived, PolicyView};
use super::proxies::ProxiesStock;
use crate::model::{ConnectionId, NodeKind, SharedClock};
use crate::net::BoxStream;
use crate::net::auth_dialer::{AuthDialer, AuthRoute};
use crate::net::frames::{AnswerError, read_answer, write_frame};
use crate::net::mux::{self, Inbound, Mux, MuxSide, MuxStream, Window};
use crate::net::tls::HANDSHAKE_DEADLINE;
use crate::pki::entropy;
use crate::policy::PolicySnapshot;
use crate::protocol::tunnel::{AuthToNode, DbToAuth, Frame, FrameKind, Header, NodeReport, ProxyToAuth, Wire};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Auth says something every second on the policy stream; silence for so long means that it or the way to it is gone.
pub const AUTH_SILENT_AFTER: Duration = Duration::from_secs(8);
const ASK_DEADLINE: Duration = Duration::from_secs(15);
/// For so long a second process with this identity may be the first one's end that auth has not seen yet.
const TWICE_TOLERATED: Duration = Duration::from_secs(15);
const BACK_OFF_MAX: Duration = Duration::from_secs(4);
const BACK_OFF_STEP: Duration = Duration::from_millis(500);
/// Auth refused a heartbeat, or to send its rules. It is asked again, as a refusal may have been of that one message; not soon,
/// as each is on the audit log.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A connection that held for so long was a good one, and its loss is a new fault.
const STEADY_AFTER: Duration = Duration::from_secs(10);

pub struct AuthLinkParts {
    pub route: AuthRoute,
    pub identity: IdentityView,
    pub clock: SharedClock,
    /// What this node is to auth; a node that is both speaks as a database node, whose enum holds all of a proxy's questions
    /// but the list of its agents.
    pub kind: NodeKind,
    /// What this node says of itself.
    pub report: watch::Receiver<NodeReport>,
    /// Written when auth says that the node must not go on; the node ends with this sentence.
    pub condemned: Arc<watch::Sender<Option<String>>>,
    /// Written with what auth says of the others.
    pub proxies: ProxiesStock,
    pub received: Address<PolicyReceived>,
    pub confirmed: Address<PolicyConfirmed>,
    pub policy: PolicyView,
    /// Answers what auth asks about this node.
    pub inspector: Inspector,
}

pub struct AuthLink {
    parts: Arc<AuthLinkParts>,
    mux: Option<Mux>,
    failures: u32,
}

impl AuthLink {
    pub fn new(parts: Arc<AuthLinkParts>) -> Self {
        Self {
            parts,
            mux: None,
            failures: 0,
        }
    }

    fn dial(&mut self, ctx: &mut Ctx<'_, Self>) {
        let parts = self.parts.clone();
        let wait = back_off(self.failures);
        ctx.state("dialling");
        let origin = ctx.origin();
        let dialled = async move {
            tokio::time::sleep(wait).await;
            let waits = origin.waits_for("TCP and TLS", AUTH, HANDSHAKE_DEADLINE);
            let (mux, inbound, driver) = mux::start(dial(&parts).await?, MuxSide::Dialled, Window::FIXED);
            drop(waits);
            Ok::<_, io::Error>((mux, inbound, spawn_here(driver)))
        };
        // A task of its own, as below: whatever auth says, this node goes on.
        let dialled = spawn_here(dialled).join();
        ctx.run(dialled, |link, connected, ctx| match connected.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok((mux, inbound, driver)) => link.connected(mux, inbound, driver, ctx),
            Err(error) => {
                link.failures += 1;
                tracing::warn!(address = %link.parts.route, %error, failures = link.failures, "auth not reached; trying again");
                link.dial(ctx);
            }
        });
    }

    fn connected(&mut self, mux: Mux, inbound: Inbound, driver: TaskGuard<String>, ctx: &mut Ctx<'_, Self>) {
        tracing::info!(address = %self.parts.route, "connected to auth");
        self.mux = Some(mux.clone());
        ctx.state("up");
        mux.gauge().belongs_to(ctx.origin().from.path().clone(), AUTH.into());
        let since = tokio::time::Instant::now();
        let (parts, origin) = (self.parts.clone(), ctx.origin());
        let life = async move {
            let why = tokio::select! {
                why = driver.join() => why.unwrap_or_else(|panic| panic),
                error = follow_policy(&parts, &mux, &origin) => error.to_string(),
                error = keep_alive(&parts, &mux, &origin) => error.to_string(),
                () = answer_auth(inbound, &parts.inspector, parts.kind, &origin) => "the multiplexer ended".to_owned(),
            };
            mux.kill();
            why
        };
        let life = spawn_here(life).join();
        ctx.run(life, move |link, why, ctx| {
            let why = why.unwrap_or_else(|panic| panic);
            tracing::warn!(address = %link.parts.route, reason = why, "connection to auth lost; sessions go on");
            link.mux = None;
            // A peer that accepts and closes at once is not hammered.
            link.failures = if since.elapsed() < STEADY_AFTER {
                link.failures + 1
            } else {
                1
            };
            link.dial(ctx);
        });
    }

    /// Asks auth and hands the answer, or why there is none, to `read`.
    fn ask<R: Send + 'static, E: Send + 'static>(
        &self,
        question: Question,
        connection: Option<ConnectionId>,
        read: fn(AuthToNode) -> Result<R, E>,
        unanswered: fn(&AnswerError) -> E,
        ctx: &mut Ctx<'_, Self>,
    ) -> Reply<Result<R, E>> {
        let Some(mux) = self.mux.clone() else {
            let down = io::Error::other("the link is down");
            return Reply::Now(Err(unanswered(&down.into())));
        };
        let (reply, promise) = Reply::later();
        let origin = Origin {
            connection,
            ..ctx.origin()
        };
        let kind = self.parts.kind;
        let answered = async move {
            let asked = tokio::time::timeout(ASK_DEADLINE, exchange(&mux, kind, &origin, question)).await;
            match asked {
                Ok(Ok(answer)) => read(answer),
                Ok(Err(error)) => Err(unanswered(&error)),
                Err(_) => {
                    let late = format!("no answer within {ASK_DEADLINE:?}");
                    Err(unanswered(&io::Error::new(io::ErrorKind::TimedOut, late).into()))
                }
            }
        };
        ctx.run_for_asker(answered, |_, answer, _| promise.keep(answer));
        reply
    }
}

/// What a node asks, before it is put into the words of its kind.
enum Question {
    WatchPolicy(Option<u64>),
    Heartbeat(NodeReport),
    Store(StoreLines),
    Issue(Box<IssueDbClient>),
    Renew(IssueHost),
    IssueServer(IssueOwnDbServer),
    /// In the words already: only a proxy asks it, whatever else its node is.
    AsProxy(ProxyToAuth),
}

impl Question {
    /// Its name in the protocol.
    fn name(&self) -> &'static str {
        match self {
            Self::WatchPolicy(_) => "WatchPolicy",
            Self::Heartbeat(_) => "Heartbeat",
            Self::Store(_) => "ShipAudit",
            Self::Issue(_) => "IssueDbClient",
            Self::Renew(_) => "RenewHost",
            Self::IssueServer(_) => "IssueDbServer",
            Self::AsProxy(ProxyToAuth::AcceptInvite { .. }) => "AcceptInvite",
            Self::AsProxy(_) => "LookAtInvite",
        }
    }
}

/// With the identity that is in use now.
async fn dial(parts: &AuthLinkParts) -> io::Result<BoxStream> {
    let identity = &parts.identity.in_use().identity;
    let listed = parts.proxies.view().known().into_iter();
    let dialer = AuthDialer::linked(
        parts.route.clone().or_through(listed.flat_map(|proxy| proxy.addresses)),
        &identity.credentials,
        &identity.anchors,
        &parts.clock,
    );
    dialer.map_err(io::Error::other)?.dial().await
}

async fn exchange(mux: &Mux, kind: NodeKind, origin: &Origin, question: Question) -> Result<AuthToNode, AnswerError> {
    let asked = origin.asks(question.name(), AUTH, ASK_DEADLINE);
    let mut stream = send(mux, kind, header(&asked, origin), question).await?;
    read_answer(&mut stream).await
}

fn header(asked: &PeerQuestion, origin: &Origin) -> Header {
    Header {
        id: asked.id(),
        kind: FrameKind::Ask {
            deadline_ms: u32::try_from(ASK_DEADLINE.as_millis()).unwrap_or(u32::MAX),
        },
        cause: asked.cause(),
        connection: origin.connection.map(ConnectionId::as_u64),
    }
}

async fn send(mux: &Mux, kind: NodeKind, header: Header, question: Question) -> io::Result<MuxStream> {
    let mut stream = mux.open().await.map_err(io::Error::other)?;
    if kind == NodeKind::Proxy || matches!(question, Question::AsProxy(_)) {
        write(&mut stream, header, in_proxy_words(question)?).await?;
    } else {
        write(&mut stream, header, in_db_words(question)?).await?;
    }
    Ok(stream)
}

async fn write<B: Wire>(stream: &mut MuxStream, header: Header, body: B) -> io::Result<()> {
    write_frame(stream, &Frame::new(header, body)).await
}

fn in_proxy_words(question: Question) -> io::Result<ProxyToAuth> {
    match question {
        Question::WatchPolicy(have) => Ok(ProxyToAuth::WatchPolicy { have }),
        Question::Heartbeat(report) => Ok(ProxyToAuth::Heartbeat { report }),
        Question::Store(StoreLines {
            spool,
            first_seq,
            lines,
        }) => Ok(ProxyToAuth::ShipAudit {
            spool,
            first_seq,
            lines,
        }),
        Question::Renew(ask) => Ok(ProxyToAuth::RenewHost {
            csr: ask.csr,
            hosts: ask.hosts,
        }),
        Question::AsProxy(body) => Ok(body),
        Question::Issue(_) | Question::IssueServer(_) => {
            Err(io::Error::other("a proxy is given no certificates for databases"))
        }
    }
}

fn in_db_words(question: Question) -> io::Result<DbToAuth> {
    Ok(match question {
        Question::WatchPolicy(have) => DbToAuth::WatchPolicy { have },
        Question::Heartbeat(report) => DbToAuth::Heartbeat { report },
        Question::Store(StoreLines {
            spool,
            first_seq,
            lines,
        }) => DbToAuth::ShipAudit {
            spool,
            first_seq,
            lines,
        },
        Question::Issue(ask) => DbToAuth::IssueDbClient {
            person: ask.person,
            service: ask.service,
            db_user: ask.db_user,
            db_name: ask.db_name,
            csr: ask.csr,
        },
        Question::IssueServer(ask) => DbToAuth::IssueDbServer {
            service: ask.service,
            hosts: ask.hosts,
            ttl_secs: ask.ttl.as_secs(),
            csr: ask.csr,
        },
        Question::Renew(ask) => DbToAuth::RenewHost {
            csr: ask.csr,
            hosts: ask.hosts,
        },
        Question::AsProxy(_) => return Err(io::Error::other("people are answered by proxies only")),
    })
}

/// Hands every snapshot and confirmation on; returns only when the connection is lost.
async fn follow_policy(parts: &AuthLinkParts, mux: &Mux, origin: &Origin) -> io::Error {
    loop {
        match follow_once(parts, mux, origin).await {
            Err(AnswerError::Io(error)) => return error,
            Err(error) if !error.leaves_the_peer() => return io::Error::other(error),
            Err(error) => {
                tracing::error!(%error, retry_in = ?REFUSED_AGAIN_AFTER, "auth publishes no rules to this node")
            }
            Ok(never) => match never {},
        }
        tokio::time::sleep(REFUSED_AGAIN_AFTER).await;
    }
}

/// News that this node does not know, or whose rules it cannot read, is passed over: what it has ages, and no connection is made
/// the better by making it again.
async fn follow_once(
    parts: &AuthLinkParts,
    mux: &Mux,
    origin: &Origin,
) -> Result<std::convert::Infallible, AnswerError> {
    let question = Question::WatchPolicy(parts.policy.version());
    let asked = origin.asks(question.name(), AUTH, AUTH_SILENT_AFTER);
    let mut stream = send(mux, parts.kind, header(&asked, origin), question).await?;
    drop(asked);
    let mut said = Said::default();
    loop {
        let _waits = origin.waits_for("PolicyConfirmed", AUTH, AUTH_SILENT_AFTER);
        let news = tokio::time::timeout(AUTH_SILENT_AFTER, read_answer(&mut stream)).await;
        let silent = || {
            let why = format!("auth has been silent for {AUTH_SILENT_AFTER:?}");
            io::Error::new(io::ErrorKind::TimedOut, why)
        };
        let news = news.map_err(|_| silent())?;
        mux.gauge().hears();
        match news {
            Ok(news) => hand_on(parts, news, origin).await?,
            Err(AnswerError::Unreadable(error)) => said.warn("news of auth was passed over", &error.to_string()),
            Err(error) => return Err(error),
        }
    }
}

async fn hand_on(parts: &AuthLinkParts, news: AuthToNode, origin: &Origin) -> io::Result<()> {
    let told = match news {
        AuthToNode::PolicyPublished {
            version,
            published_at,
            documents,
            max_age_secs,
        } => match PolicySnapshot::from_documents(version, published_at, &documents) {
            Ok(snapshot) => {
                let received = PolicyReceived {
                    snapshot: Arc::new(snapshot),
                    max_age: Duration::from_secs(u64::from(max_age_secs)),
                };
                parts.received.tell_when_room(origin, received).await
            }
            Err(error) => {
                tracing::error!(version, %error, "auth's rules cannot be read; if auth is of a newer version, upgrade this node");
                Ok(())
            }
        },
        AuthToNode::PolicyConfirmed { version } => {
            parts.confirmed.tell_when_room(origin, PolicyConfirmed(version)).await
        }
        _ => {
            tracing::warn!("auth sent something else on the policy stream");
            Ok(())
        }
    };
    told.map_err(io::Error::other)
}

/// What was logged last, so that what comes again every two seconds is a warning once.
#[derive(Default)]
struct Said(Option<String>);

impl Said {
    fn warn(&mut self, what: &str, why: &str) {
        if self.0.as_deref() != Some(why) {
            tracing::warn!(reason = why, "{what}");
            self.0 = Some(why.to_owned());
        }
    }
}

async fn keep_alive(parts: &AuthLinkParts, mux: &Mux, origin: &Origin) -> io::Error {
    let mut report = parts.report.clone();
    let mut twice_since = None;
    loop {
        let beat = Question::Heartbeat(report.borrow_and_update().clone());
        let beaten = tokio::time::timeout(AUTH_SILENT_AFTER, exchange(mux, parts.kind, origin, beat)).await;
        match beaten {
            Ok(Ok(AuthToNode::Heard { proxies })) => {
                twice_since = None;
                parts.proxies.heard(proxies);
            }
            Ok(Ok(AuthToNode::RunsTwice { why })) => {
                let since = *twice_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() >= TWICE_TOLERATED {
                    parts.condemned.send_replace(Some(why));
                } else {
                    tracing::warn!(reason = why, "auth does not take this node's heartbeat yet");
                }
            }
            Ok(Ok(AuthToNode::Declined { why })) => tracing::warn!(reason = why, "auth did not take the heartbeat"),
            Ok(Ok(_)) => tracing::warn!("auth answered a heartbeat with something else"),
            // The policy stream shows meanwhile whether auth lives.
            Ok(Err(error)) if error.leaves_the_peer() => {
                tracing::error!(%error, retry_in = ?REFUSED_AGAIN_AFTER, "auth does not hear this node's heartbeats");
                tokio::time::sleep(REFUSED_AGAIN_AFTER).await;
            }
            Ok(Err(AnswerError::Io(error))) => return error,
            Ok(Err(error)) => return io::Error::other(error),
            Err(_) => return io::ErrorKind::TimedOut.into(),
        }
        // News is told at once.
        if let Ok(Err(_no_more_news)) = tokio::time::timeout(HEARTBEAT_EVERY, report.changed()).await {
            tokio::time::sleep(HEARTBEAT_EVERY).await;
        }
    }
}

fn no_certificate(error: &AnswerError) -> CaError {
    if error.leaves_the_peer() {
        CaError::NotUnderstood(error.to_string())
    } else {
        CaError::AuthAway(error.to_string())
    }
}

fn back_off(failures: u32) -> Duration {
    let [jitter] = entropy::bytes::<1>();
    let steps = BACK_OFF_STEP
        .saturating_mul(failures.saturating_sub(1))
        .min(BACK_OFF_MAX);
    let spread = if failures == 0 {
        Duration::ZERO
    } else {
        BACK_OFF_STEP.mul_f64(f64::from(jitter) / 256.0)
    };
    steps + spread
}

impl Behavior for AuthLink {
    /// Certificates for new connections, and the audit trail: more waiting than this means that auth is too slow.
    const MAILBOX: usize = 256;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.dial(ctx);
    }
}

impl Handle<IssueDbClient> for AuthLink {
    fn handle(&mut self, ask: IssueDbClient, ctx: &mut Ctx<'_, Self>) -> Reply<Result<Issued, CaError>> {
        let connection = Some(ask.connection);
        let read = |answer| match answer {
            AuthToNode::DbClientIssued { certificate, not_after } => Ok(Issued { certificate, not_after }),
            AuthToNode::Declined { why } => Err(CaError::Declined(why)),
            AuthToNode::Undecided { why } => Err(CaError::AuthAway(why)),
            _ => Err(CaError::NotUnderstood("it answered something else".to_owned())),
        };
        self.ask(Question::Issue(Box::new(ask)), connection, read, no_certificate, ctx)
    }
}

impl Handle<IssueHost> for AuthLink {
    fn handle(&mut self, ask: IssueHost, ctx: &mut Ctx<'_, Self>) -> Reply<Result<Issued, CaError>> {
        let read = |answer| match answer {
            AuthToNode::HostIssued { certificate, not_after } => Ok(Issued { certificate, not_after }),
            AuthToNode::Declined { why } => Err(CaError::Declined(why)),
            AuthToNode::Undecided { why } => Err(CaError::AuthAway(why)),
            _ => Err(CaError::NotUnderstood("it answered something else".to_owned())),
        };
        self.ask(Question::Renew(ask), None, read, no_certificate, ctx)
    }
}

impl Handle<IssueOwnDbServer> for AuthLink {
    fn handle(&mut self, ask: IssueOwnDbServer, ctx: &mut Ctx<'_, Self>) -> Reply<Result<DbServerIssued, CaError>> {
        let read = |answer| match answer {
            AuthToNode::DbServerIssued {
                certificate,
                not_after,
                clients,
            } => Ok(DbServerIssued {
                certificate,
                not_after,
                clients,
            }),
            AuthToNode::Declined { why } => Err(CaError::Declined(why)),
            AuthToNode::Undecided { why } => Err(CaError::AuthAway(why)),
            _ => Err(CaError::NotUnderstood("it answered something else".to_owned())),
        };
        self.ask(Question::IssueServer(ask), None, read, no_certificate, ctx)
    }
}

impl Handle<StoreLines> for AuthLink {
    fn handle(&mut self, lines: StoreLines, ctx: &mut Ctx<'_, Self>) -> Reply<Result<u64, String>> {
        let read = |answer| match answer {
            AuthToNode::AuditStored { last_seq } => Ok(last_seq),
            AuthToNode::Declined { why } => Err(why),
            _ => Err("auth answered something else".to_owned()),
        };
        let unanswered = |error: &AnswerError| match error.leaves_the_peer() {
            true => format!("auth was asked: {error}"),
            false => format!("auth cannot be reached: {error}"),
        };
        self.ask(Question::Store(lines), None, read, unanswered, ctx)
    }
}

impl Handle<LookAtInvite> for AuthLink {
    fn handle(&mut self, ask: LookAtInvite, ctx: &mut Ctx<'_, Self>) -> Reply<Result<Invitation, AccountError>> {
        let question = Question::AsProxy(ProxyToAuth::LookAtInvite {
            token: ask.token.into(),
        });
        self.ask(
            question,
            None,
            account_words::invitation,
            account_words::unanswered,
            ctx,
        )
    }
}

impl Handle<AcceptInvite> for AuthLink {
    fn handle(&mut self, ask: AcceptInvite, ctx: &mut Ctx<'_, Self>) -> Reply<Result<(), AccountError>> {
        let question = Question::AsProxy(ProxyToAuth::AcceptInvite {
            token: ask.token.into(),
            password: ask.password.into(),
            code: ask.code.into(),
            client_address: ask.client_address,
        });
        self.ask(question, None, account_words::accepted, account_words::unanswered, ctx)
    }
}
