//! A client of PostgreSQL at the end of a pipe: it connects, asks, and leaves in one of the ways that clients have.

use super::postgres::message;
use super::record::{Record, What};
use super::rules::{DB_USERS, PEOPLE};
use super::world::World;
use crate::actors::connection::{Arrival, Connection};
use crate::actors::host::{Runtime, Spec, start_on};
use crate::model::ConnectionId;
use crate::net::BoxStream;
use crate::pki::entropy::seeded::Draws;
use crate::protocol::postgres::StartupMessage;
use crate::protocol::postgres::backend::ErrorFields;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// Small, so that whoever does not read is felt.
const PIPE_BYTES: usize = 4 * 1024;
/// Nobody stays for longer.
pub const STAYS: Duration = Duration::from_secs(25);

pub struct Client {
    number: u64,
    person: &'static str,
    db_user: &'static str,
    /// In milliseconds from the beginning.
    pub begins: u64,
    draws: Draws,
}

impl Client {
    pub fn drawn(number: u64, draws: &mut Draws) -> Self {
        // mallory is rarer than those who may.
        let person = match draws.below(10) {
            9 => 3,
            other => other as usize % 3,
        };
        Self {
            number,
            person: PEOPLE[person],
            db_user: DB_USERS[draws.below(2) as usize],
            begins: draws.below(6_000),
            draws: Draws::new(draws.draw(), number),
        }
    }

    pub async fn run(mut self, world: Arc<World>) {
        tokio::time::sleep(Duration::from_millis(self.begins)).await;
        let (mut pipe, far) = tokio::io::duplex(PIPE_BYTES);
        self.connect(&world, Box::new(far));
        let _gone = tokio::time::timeout(STAYS, self.talk(&mut pipe, &world.record)).await;
        world.record.note(What::Left { client: self.number });
    }

    fn connect(&self, world: &World, stream: BoxStream) {
        let (client, person, db_user) = (self.number, self.person, self.db_user);
        world.record.note(What::Connected {
            client,
            person,
            db_user,
        });
        let parameters = [
            ("user", db_user.to_owned()),
            ("database", "app".to_owned()),
            ("application_name", client.to_string()),
        ];
        let mut arrival = Some(Arrival::Greeted {
            stream,
            chain: world.chain_of(person),
            startup: StartupMessage {
                minor: 0,
                parameters: parameters.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            },
        });
        let (parts, peer) = (world.proxy_parts.clone(), ([10, 0, 0, 1], 40_000).into());
        let id = ConnectionId::from_random(client.to_be_bytes());
        let name = Spec::temporary(&format!("connection#{client}"));
        start_on(&Runtime::current(), name, Arc::new(|_| {}), move || {
            Connection::new(id, arrival.take(), peer, 0, parts.clone())
        });
    }

    async fn talk(&mut self, pipe: &mut DuplexStream, record: &Record) -> io::Result<()> {
        if self.draws.percent(5) {
            // It does not wait for anything.
            return Ok(());
        }
        self.read_until_ready(pipe, record).await?;
        let client = self.number;
        for number in 0..self.draws.below(6) {
            if self.draws.percent(50) {
                tokio::time::sleep(Duration::from_millis(self.draws.below(1_500))).await;
            }
            let many = if self.draws.percent(25) { " many" } else { "" };
            let query = format!("select {} {number}{many}\0", self.number);
            pipe.write_all(&message(b'Q', query.as_bytes())).await?;
            if self.draws.percent(8) {
                // In the middle of its statement.
                return Ok(());
            }
            self.read_until_ready(pipe, record).await?;
            let request = number + 1;
            record.note(What::Answered { client, request });
        }
        match self.draws.below(5) {
            0 => pipe.write_all(&message(b'X', b"")).await,
            1 => Ok(()),
            2 => {
                pipe.shutdown().await?;
                self.read_until_ready(pipe, record).await
            }
            3 => {
                // It reads nothing, and sees what becomes of it.
                let query = format!("select {} many\0", self.number);
                pipe.write_all(&message(b'Q', query.as_bytes())).await?;
                tokio::time::sleep(STAYS).await;
                Ok(())
            }
            _ => loop {
                self.read_until_ready(pipe, record).await?;
            },
        }
    }

    /// Reads up to ReadyForQuery; an end of the connection is an error.
    async fn read_until_ready(&self, pipe: &mut DuplexStream, record: &Record) -> io::Result<()> {
        let client = self.number;
        loop {
            let kind = match pipe.read_u8().await {
                Ok(kind) => kind,
                Err(error) => {
                    record.note(What::ReadEnd { client });
                    return Err(error);
                }
            };
            let length = pipe.read_u32().await? as usize;
            let mut body = vec![0; length.saturating_sub(4)];
            pipe.read_exact(&mut body).await?;
            match kind {
                b'R' => record.note(What::LetIn { client }),
                b'E' => {
                    let fields = ErrorFields::parse(&body).map_err(io::Error::other)?;
                    let sqlstate = fields.sqlstate.unwrap_or_default();
                    record.note(What::ReadError { client, sqlstate });
                }
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }
}
