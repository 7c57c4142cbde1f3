//! A PostgreSQL at the end of a pipe: it lets in whoever comes, answers each Query, and notes what reaches it.

use super::record::{Record, What};
use crate::actors::host::spawn_detached;
use crate::model::{Endpoint, Secret};
use crate::net::BoxStream;
use crate::net::upstream::{ConnectError, Dial, ShowWait};
use crate::net::upstream_tls::UpstreamClient;
use crate::pki::entropy::seeded::Draws;
use crate::protocol::postgres::backend::{authentication_ok, backend_key_data, error_response_with, parameter_status};
use crate::protocol::postgres::startup::{FirstPacket, parse};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::sync::watch;

/// Small, so that whoever does not read is felt.
const PIPE_BYTES: usize = 8 * 1024;
/// One row of a large result.
const ROW_BYTES: usize = 4000;

pub struct Postgres {
    record: Record,
    draws: Mutex<Draws>,
    killed: watch::Sender<u64>,
    dials: AtomicU64,
}

/// An agent's way to it.
pub struct Way {
    pub agent: usize,
    pub postgres: Arc<Postgres>,
}

/// One connection to it, as it is in the record.
#[derive(Clone)]
struct Dialled {
    agent: usize,
    dial: u64,
    record: Record,
}

impl Postgres {
    pub fn new(record: Record, draws: Draws) -> Arc<Self> {
        Arc::new(Self {
            record,
            draws: Mutex::new(draws),
            killed: watch::Sender::new(0),
            dials: AtomicU64::new(1),
        })
    }

    /// Ends all its sessions, without a word or with its last one.
    pub fn kill(&self) {
        self.killed.send_modify(|times| *times += 1);
    }
}

impl Dial for Way {
    fn dial<'a>(
        &'a self,
        _: &'a Endpoint,
        _: &'a UpstreamClient,
        _: ShowWait<'a>,
    ) -> BoxFuture<'a, Result<BoxStream, ConnectError>> {
        let mut draws = {
            let mut draws = self.postgres.draws.lock().unwrap();
            Draws::new(draws.draw(), 0)
        };
        async move {
            let wait = match draws.below(100) {
                0..3 => return Err(ConnectError::Unreachable(io::ErrorKind::ConnectionRefused.into())),
                3..6 => 20_000,
                6..12 => draws.below(4_000),
                _ => draws.below(20),
            };
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let dialled = Dialled {
                agent: self.agent,
                dial: self.postgres.dials.fetch_add(1, Ordering::Relaxed),
                record: self.postgres.record.clone(),
            };
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let agents = AgentsEnd {
                pipe: near,
                dialled: dialled.clone(),
                breaks_after: draws.percent(5).then(|| draws.below(60)),
            };
            spawn_detached(serve_until_killed(
                far,
                dialled,
                self.postgres.killed.subscribe(),
                draws,
            ));
            let stream: BoxStream = Box::new(agents);
            Ok(stream)
        }
        .boxed()
    }
}

async fn serve_until_killed(
    mut pipe: DuplexStream,
    dialled: Dialled,
    mut killed: watch::Receiver<u64>,
    mut draws: Draws,
) {
    let says_why = draws.percent(50);
    let was_killed = tokio::select! {
        biased;
        _ = killed.changed() => true,
        _gone = serve(&mut pipe, &dialled, &mut draws) => false,
    };
    if was_killed && says_why {
        let last = error_response_with("FATAL", "57P01", "terminating connection", None, None);
        let said = tokio::time::timeout(Duration::from_secs(1), pipe.write_all(&last));
        let _nobody_reads = said.await;
    }
    dialled.record.note(What::PostgresEnded { dial: dialled.dial });
}

/// The agent's end of the pipe. It notes when the agent lets go, and may panic in its reader's face.
struct AgentsEnd {
    pipe: DuplexStream,
    dialled: Dialled,
    breaks_after: Option<u64>,
}

impl Drop for AgentsEnd {
    fn drop(&mut self) {
        let dial = self.dialled.dial;
        self.dialled.record.note(What::LetGo { dial });
    }
}

impl AsyncRead for AgentsEnd {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.breaks_after {
            Some(0) => std::panic::resume_unwind(Box::new("a fault of the seed in a relay")),
            Some(left) => *left -= 1,
            None => {}
        }
        Pin::new(&mut self.pipe).poll_read(cx, out)
    }
}

impl AsyncWrite for AgentsEnd {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

async fn serve(pipe: &mut DuplexStream, dialled: &Dialled, draws: &mut Draws) -> io::Result<()> {
    let Dialled { agent, dial, record } = dialled;
    let length = pipe.read_u32().await? as usize;
    let mut body = vec![0; length.saturating_sub(4)];
    pipe.read_exact(&mut body).await?;
    let Ok(FirstPacket::Startup(startup)) = parse(&body) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let name = startup.parameters.iter().find(|(name, _)| name == "application_name");
    let client = name.and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
    let (agent, dial) = (*agent, *dial);
    record.note(What::StartupSeen { client, dial, agent });
    pause(draws).await;
    if draws.percent(3) {
        let full = error_response_with("FATAL", "53300", "sorry, too many clients already", None, None);
        return pipe.write_all(&full).await;
    }
    pipe.write_all(&authentication_ok()).await?;
    pipe.write_all(&parameter_status("server_version", "17.0")).await?;
    pause(draws).await;
    let process_id = u32::try_from(client).unwrap_or(0);
    pipe.write_all(&backend_key_data(process_id, &Secret::new(vec![7; 4])))
        .await?;
    pipe.write_all(&message(b'Z', b"I")).await?;
    loop {
        let kind = pipe.read_u8().await?;
        let length = pipe.read_u32().await? as usize;
        let mut body = vec![0; length.saturating_sub(4)];
        pipe.read_exact(&mut body).await?;
        if kind == b'X' {
            return Ok(());
        }
        let statement = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
        let rows = if statement.contains("many") { draws.below(20) } else { 0 };
        record.note(What::StatementSeen { client, statement });
        pause(draws).await;
        for _ in 0..rows {
            pipe.write_all(&message(b'D', &[b'x'; ROW_BYTES])).await?;
        }
        pipe.write_all(&message(b'C', b"SELECT 1\0")).await?;
        pipe.write_all(&message(b'Z', b"I")).await?;
    }
}

async fn pause(draws: &mut Draws) {
    let longest = if draws.percent(5) { 2_000 } else { 15 };
    tokio::time::sleep(Duration::from_millis(draws.below(longest))).await;
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    let mut message = vec![kind];
    message.extend(length.to_be_bytes());
    message.extend(body);
    message
}
