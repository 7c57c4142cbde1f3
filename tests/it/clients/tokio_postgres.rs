//! tokio-postgres with rustls, as Rust programs connect.

use super::{CLARA, rows};
use crate::harness::{Cluster, PATIENCE};
use futures::{SinkExt, StreamExt, TryStreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Config, SimpleQueryMessage};

rows! {
    queries: "simple queries, and prepared statements with parameters" => "works",
    pipelined: "500 queries at once on one connection" => "works",
    copies: "COPY in and out" => "works",
    cancels: "`cancel_query`, under TLS" => "works: 57014, and the session goes on",
    notifications: "LISTEN and NOTIFY, notices" => "works",
    transactions: "transactions, portals in portions" => "works",
}

pub fn version() -> String {
    let lock = include_str!("../../../Cargo.lock");
    let after = lock.split("name = \"tokio-postgres\"\nversion = \"").nth(1);
    format!(
        "tokio-postgres {}",
        after.and_then(|rest| rest.split('"').next()).unwrap_or_default()
    )
}

#[derive(Clone)]
struct Rustls(Arc<ClientConfig>);

impl Rustls {
    fn with_the_certificate() -> Self {
        let certificates = |suffix| -> Vec<CertificateDer<'static>> {
            let read = CertificateDer::pem_file_iter(CLARA.prefix.with_extension(suffix)).expect("PEM");
            read.map(|one| one.expect("PEM")).collect()
        };
        let mut roots = RootCertStore::empty();
        for root in certificates("cas") {
            roots.add(root).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from_pem_file(CLARA.prefix.with_extension("key")).expect("PEM");
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates("crt"), key)
            .expect("the key fits");
        Self(Arc::new(config))
    }
}

struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);
struct Handshake(Rustls, ServerName<'static>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Rustls {
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Handshake> {
        let name = ServerName::try_from(domain.to_owned()).map_err(io::Error::other)?;
        Ok(Handshake(self.clone(), name))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connector = tokio_rustls::TlsConnector::from(self.0.0);
        Box::pin(async move { connector.connect(self.1, stream).await.map(Encrypted) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, to)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What PostgreSQL says unasked.
type Heard = Arc<Mutex<Vec<String>>>;

async fn connect() -> (Client, Heard) {
    let mut config = Config::new();
    config
        .host("localhost")
        .port(CLARA.port)
        .user("app")
        .dbname("app")
        .ssl_mode(SslMode::Require);
    let (client, mut connection) = config.connect(Rustls::with_the_certificate()).await.expect("allowed");
    let heard = Heard::default();
    let writes = Arc::clone(&heard);
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            let text = match message {
                AsyncMessage::Notification(news) => format!("{}: {}", news.channel(), news.payload()),
                AsyncMessage::Notice(notice) => notice.message().to_owned(),
                _ => continue,
            };
            writes.lock().expect("no panic").push(text);
        }
    });
    (client, heard)
}

/// Runs a client's life on a runtime of its own.
fn live(life: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let within = runtime.block_on(async { tokio::time::timeout(PATIENCE, life).await });
    within.expect("in time").expect("no error");
}

fn queries(_: &Cluster) {
    live(async {
        let (client, _) = connect().await;
        let rows = client.simple_query("select 6 * 7; select 'two'").await?;
        let texts = rows.iter().filter_map(|row| match row {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["42", "two"]);
        let prepared = client.prepare("select $1::int4 * 2, $2::text, $3::bytea").await?;
        for number in 0..50 {
            let row = client
                .query_one(&prepared, &[&number, &"text", &&b"\x00\xff"[..]])
                .await?;
            assert_eq!(
                (row.get::<_, i32>(0), row.get::<_, Vec<u8>>(2)),
                (number * 2, vec![0, 255])
            );
        }
        let wrong = client.query("select 1 / $1::int4", &[&0]).await.expect_err("by zero");
        assert_eq!(wrong.code(), Some(&tokio_postgres::error::SqlState::DIVISION_BY_ZERO));
        assert_eq!(client.query_one("select 7", &[]).await?.get::<_, i32>(0), 7);
        Ok(())
    });
}

fn pipelined(_: &Cluster) {
    live(async {
        let (client, _) = connect().await;
        let prepared = client.prepare("select $1::int4, repeat('x', 1000)").await?;
        let numbers: Vec<i32> = (0..500).collect();
        let asked = numbers.iter().map(|number| {
            let (client, prepared) = (&client, &prepared);
            async move {
                client
                    .query_one(prepared, &[number])
                    .await
                    .map(|row| row.get::<_, i32>(0))
            }
        });
        assert_eq!(futures::future::try_join_all(asked).await?, numbers);
        Ok(())
    });
}

fn copies(_: &Cluster) {
    live(async {
        let (client, _) = connect().await;
        client
            .batch_execute("create temporary table parts (id int, name text)")
            .await?;
        let mut sink = Box::pin(client.copy_in("copy parts from stdin").await?);
        let line = "7\tpart\n".repeat(1000);
        for _ in 0..20 {
            sink.send(io::Cursor::new(line.clone().into_bytes())).await?;
        }
        assert_eq!(sink.as_mut().finish().await?, 20_000);
        let out = client.copy_out("copy parts to stdout").await?;
        let bytes: usize = out
            .map_ok(|part| part.len())
            .try_fold(0, |sum, part| async move { Ok(sum + part) })
            .await?;
        assert_eq!(bytes, line.len() * 20);
        Ok(())
    });
}

fn cancels(_: &Cluster) {
    live(async {
        let (client, _) = connect().await;
        let (watches, _) = connect().await;
        let token = client.cancel_token();
        let sleeps = client.simple_query("select pg_sleep(60) /* rust waits */");
        let cancelled = async {
            let runs =
                "select from pg_stat_activity where state = 'active' and query like 'select pg_sleep%rust waits%'";
            while watches.query(runs, &[]).await?.is_empty() {}
            token.cancel_query(Rustls::with_the_certificate()).await
        };
        let (slept, cancelled) = tokio::join!(sleeps, cancelled);
        cancelled?;
        let state = slept.expect_err("cancelled").code().cloned();
        assert_eq!(state, Some(tokio_postgres::error::SqlState::QUERY_CANCELED));
        assert_eq!(client.query_one("select 7", &[]).await?.get::<_, i32>(0), 7);
        Ok(())
    });
}

fn notifications(_: &Cluster) {
    live(async {
        let (hears, heard) = connect().await;
        let (tells, _) = connect().await;
        hears
            .batch_execute("listen lanterns_of_rust; do $$ begin raise notice 'mind'; end $$")
            .await?;
        tells.batch_execute("notify lanterns_of_rust, 'lit'").await?;
        while heard.lock().expect("no panic").len() < 2 {
            hears.batch_execute("select 1").await?;
        }
        assert_eq!(*heard.lock().expect("no panic"), ["mind", "lanterns_of_rust: lit"]);
        Ok(())
    });
}

fn transactions(_: &Cluster) {
    live(async {
        let (mut client, _) = connect().await;
        let transaction = client.transaction().await?;
        let portal = transaction.bind("select generate_series(1, 1000)", &[]).await?;
        let mut rows = 0;
        loop {
            let portion = transaction.query_portal(&portal, 64).await?;
            rows += portion.len();
            if portion.len() < 64 {
                break;
            }
        }
        assert_eq!(rows, 1000);
        transaction.rollback().await?;
        Ok(())
    });
}
