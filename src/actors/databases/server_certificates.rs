//! The certificates that the PostgreSQL servers of this agent present, kept from ending.
//!
//! **Owns** the files of each database that has `server_certificate`.
//! **Hears** nothing; it looks at the files and at the clock.
//! **Tells** auth when a certificate is due, and PostgreSQL, by the command of the configuration, when there is a new one.
//! **Never** lets a key leave the machine, and never replaces one.
//! **Ends** with the node. Its state is the files.

use super::command;
use super::server_files::{FilesError, ServerFiles, Wanted};
use crate::actors::address::{Address, AskError, Origin};
use crate::actors::ca::{CaError, DbServerIssued, IssueOwnDbServer};
use crate::actors::host::{Behavior, Ctx};
use crate::actors::identity::IdentityView;
use crate::model::{NodeId, ServiceName, SharedClock, Timestamp};
use crate::telemetry::panics;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;

/// Reading three small files costs nothing, and a clock that was set or a file that was removed is noticed soon.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After a failure: doubled each time, up to an hour.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(3600);
const ISSUE_DEADLINE: Duration = Duration::from_secs(15);
/// A reload takes a moment; a restart of a busy server may take a minute.
const RELOAD_DEADLINE: Duration = Duration::from_secs(60);

/// What is kept for one database.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    pub service: ServiceName,
    pub hosts: Vec<String>,
    pub ttl: Duration,
    pub files: ServerFiles,
    /// Empty: somebody else reloads PostgreSQL.
    pub reload_command: Vec<String>,
}

pub struct ServerCertificatesParts {
    pub node: NodeId,
    pub kept: Vec<Arc<ServerCertificate>>,
    pub identity: IdentityView,
    pub issue: Address<IssueOwnDbServer>,
    pub clock: SharedClock,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("the reload command failed: {0}")]
    Reload(String),
    #[error("the work on the files failed: {0}")]
    Lost(String),
}

pub struct ServerCertificates {
    parts: Arc<ServerCertificatesParts>,
}

impl ServerCertificates {
    pub fn new(parts: Arc<ServerCertificatesParts>) -> Self {
        Self { parts }
    }

    fn look(kept: Arc<ServerCertificate>, failures: u32, wait: Duration, ctx: &mut Ctx<'_, Self>) {
        ctx.after(wait, move |keeper, ctx| {
            let (parts, origin, job) = (keeper.parts.clone(), ctx.origin(), kept.clone());
            ctx.run(async move { keep(&parts, &job, &origin).await }, move |_, done, ctx| {
                let (failures, wait) = match done {
                    Ok(()) => (0, LOOK_EVERY),
                    Err(error) => {
                        let wait = RETRY_FIRST
                            .saturating_mul(2_u32.saturating_pow(failures.min(16)))
                            .min(RETRY_MAX);
                        tracing::warn!(
                            database = %kept.service, %error, retry_in = ?wait,
                            "the certificate of PostgreSQL is not as it should be"
                        );
                        (failures + 1, wait)
                    }
                };
                Self::look(kept, failures, wait, ctx);
            });
        });
    }
}

/// One look at the files of a database, and what has to be done about them.
async fn keep(
    parts: &ServerCertificatesParts,
    kept: &Arc<ServerCertificate>,
    origin: &Origin,
) -> Result<(), KeepError> {
    let now = parts.clock.now();
    if let Some(why) = due(parts, kept, now).await? {
        tracing::info!(database = %kept.service, reason = why, "PostgreSQL needs a certificate");
        let until = renew(parts, kept, origin).await?;
        tracing::info!(database = %kept.service, %until, "PostgreSQL has a new certificate");
    }
    let files = kept.files.clone();
    if !kept.reload_command.is_empty() && on_disk(move || Ok(files.reload_is_due())).await? {
        let ran = command::run(&kept.reload_command, RELOAD_DEADLINE)
            .await
            .map_err(KeepError::Reload)?;
        if !ran.status.success() {
            let said = command::first_line(&[ran.errors, ran.output].concat());
            return Err(KeepError::Reload(format!("{}: {said}", ran.status)));
        }
        let files = kept.files.clone();
        on_disk(move || files.reloaded()).await?;
        tracing::info!(database = %kept.service, "PostgreSQL was told to read its certificate");
    }
    Ok(())
}

async fn due(
    parts: &ServerCertificatesParts,
    kept: &Arc<ServerCertificate>,
    now: Timestamp,
) -> Result<Option<&'static str>, KeepError> {
    let anchors = parts.identity.in_use().identity.anchors.clone();
    let kept = kept.clone();
    on_disk(move || {
        let wanted = Wanted {
            hosts: &kept.hosts,
            ttl: kept.ttl,
            authorities: &anchors.db,
            clients: &anchors.db_client,
        };
        kept.files.due(&wanted, now)
    })
    .await
}

async fn renew(
    parts: &ServerCertificatesParts,
    kept: &Arc<ServerCertificate>,
    origin: &Origin,
) -> Result<Timestamp, KeepError> {
    let files = kept.files.clone();
    let key = on_disk(move || files.key()).await?;
    let name = kept.hosts.first().map_or("", String::as_str);
    let ask = IssueOwnDbServer {
        agent: parts.node,
        service: kept.service.clone(),
        hosts: kept.hosts.clone(),
        ttl: kept.ttl,
        csr: key.csr(name)?,
    };
    let DbServerIssued {
        certificate,
        not_after,
        clients,
    } = parts.issue.ask(origin, ask, ISSUE_DEADLINE).await??;
    let files = kept.files.clone();
    on_disk(move || {
        let clients: Vec<CertificateDer<'static>> = clients.into_iter().map(CertificateDer::from).collect();
        files.put(&certificate, &clients)
    })
    .await?;
    Ok(not_after)
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, KeepError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| KeepError::Lost(panics::of_task(error)))??)
}

impl Behavior for ServerCertificates {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        for kept in self.parts.kept.clone() {
            Self::look(kept, 0, Duration::ZERO, ctx);
        }
    }
}
