//! From an accepted socket to who has come: the client's address, a place among the strangers of that address, and the first
//! bytes, all within one deadline. Whoever is turned away is told so, and so are the log and, where it matters, the audit trail.

use super::identity::IdentityView;
use super::places::Place;
use super::strangers::Strangers;
use crate::config::ProxyProtocol;
use crate::net::greeting::{self, Greeted, Unwelcome};
use crate::net::socket;
use crate::net::tls::{HANDSHAKE_DEADLINE, Http};
use std::net::SocketAddr;
use tokio::time::{Instant, timeout_at};

/// Of one port.
pub struct Door {
    pub identity: IdentityView,
    pub http: Http,
    /// Whether balancers say who comes.
    pub proxy_protocol: ProxyProtocol,
    pub strangers: Strangers,
}

/// Somebody who has got through the handshake.
pub(super) struct Arrived {
    pub client: SocketAddr,
    /// Held until it is known who this is.
    pub place: Place,
    pub greeted: Greeted,
}

/// Why nobody has come.
pub(super) enum TurnedAway {
    TooMany,
    Unwelcome(Unwelcome),
}

impl Door {
    /// Meets an accepted connection.
    pub(super) async fn meet(&self, accepted: std::net::TcpStream, peer: SocketAddr) -> Result<Arrived, TurnedAway> {
        let deadline = Instant::now() + HANDSHAKE_DEADLINE;
        let mut tcp = socket::adopt(accepted).map_err(|error| self.turn_away(peer, error.into()))?;
        // Where everybody's headers are believed, whoever sends none must not have more places than others.
        let before = match &self.proxy_protocol {
            ProxyProtocol::On { from } if from.is_empty() => {
                Some(self.strangers.enter(peer).ok_or(TurnedAway::TooMany)?)
            }
            _ => None,
        };
        let client = timeout_at(deadline, greeting::client_of(&mut tcp, peer, &self.proxy_protocol))
            .await
            .unwrap_or(Err(Unwelcome::Late(HANDSHAKE_DEADLINE)))
            .map_err(|why| self.turn_away(peer, why))?;
        drop(before);
        let place = self.strangers.enter(client).ok_or(TurnedAway::TooMany)?;
        let in_use = self.identity.in_use();
        let greeted = greeting::greet(tcp, &in_use.sides, self.http, (deadline, HANDSHAKE_DEADLINE))
            .await
            .map_err(|why| self.turn_away(client, why))?;
        Ok(Arrived { client, place, greeted })
    }

    fn turn_away(&self, client: SocketAddr, why: Unwelcome) -> TurnedAway {
        self.strangers.turned_away(client, &why);
        TurnedAway::Unwelcome(why)
    }
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod tests;
