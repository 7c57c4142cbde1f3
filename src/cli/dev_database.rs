//! The database that `postern dev` shows: its roles, its rows, and how it is made.

use super::Failure;
use super::admin_client::AdminClient;
use super::auth_sign::sign_database;
use super::throwaway_postgres::{Installation, ServerTls, ThrowawayPostgres};
use crate::pki::PrivateKey;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const DB_USER: &str = "app";
pub const DB_NAME: &str = "app";

/// The database lives for an afternoon; a certificate that ends within 30 days would be warned of.
const SERVER_TTL: Duration = Duration::from_secs(91 * 24 * 3600);

const ROLES: &str = "create role app login; create database app owner app;";

const ROWS: &str = "
set role app;
create table orders (
  id int primary key,
  customer text not null,
  item text not null,
  cents int not null
);
insert into orders values
  (1, 'Ada Lovelace', 'punched cards', 1250),
  (2, 'Grace Hopper', 'a nanosecond of wire', 30),
  (3, 'Edgar Codd', 'twelve rules', 0),
  (4, 'Barbara Liskov', 'a substitute', 4200);
";

/// A port that is free now. Another program may take it before PostgreSQL does, which then says so.
pub fn free_port() -> Result<u16, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::failed(format!("there is no free port on 127.0.0.1: {error}")))
}

/// Starts PostgreSQL with a certificate of the cluster and fills it. `record` is where the next start finds what this one left.
pub async fn start(
    installation: Installation,
    client: &AdminClient,
    port: u16,
    record: PathBuf,
) -> Result<ThrowawayPostgres, Failure> {
    let key = PrivateKey::generate().map_err(Failure::internal)?;
    let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let signed = sign_database(client, &key, hosts, SERVER_TTL).await?;
    let key_pem = key.to_pem().map_err(Failure::internal)?;
    let start = move || -> Result<ThrowawayPostgres, Failure> {
        let tls = ServerTls {
            certificate_pem: &signed.certificate,
            key_pem: key_pem.expose(),
            client_ca_pem: &signed.authorities,
        };
        let prepared = ThrowawayPostgres::prepare(&installation, None)
            .and_then(|prepared| prepared.recorded_in(&record))
            .map_err(Failure::failed)?;
        let server = prepared.start(&tls, port).map_err(Failure::failed)?;
        server.sql("postgres", ROLES).map_err(Failure::failed)?;
        server.sql(DB_NAME, ROWS).map_err(Failure::failed)?;
        Ok(server)
    };
    blocking(start).await
}

pub async fn stop(server: ThrowawayPostgres) -> Result<(), Failure> {
    blocking(move || server.stop().map_err(Failure::failed)).await
}

/// Ends what a `kill -9` of an earlier run left.
pub async fn sweep(record: &Path) -> Result<(), Failure> {
    let record = record.to_owned();
    blocking(move || {
        let swept = super::throwaway_postgres::sweep_leftovers(&record).map_err(Failure::failed)?;
        if let Some(directory) = swept {
            tracing::info!(path = %directory.display(), "removed the database that an earlier run left");
        }
        Ok(())
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::internal(format!("the database's thread failed: {error}")))?
}
