//! The list of open sessions, by their ids and by their persons.

use super::session_limits::Limits;
use crate::model::{ConnectionId, PersonName, ServiceName, SessionId};
use crate::net::copy::End;
use crate::policy::AccessRequest;
use std::collections::{BTreeMap, HashMap, HashSet};
use tokio::sync::mpsc;

/// One open session: what was allowed, for how long, and the way to end it.
pub struct Open {
    pub connection: ConnectionId,
    pub request: AccessRequest,
    pub limits: Limits,
    pub end: mpsc::Sender<Box<End>>,
}

#[derive(Default)]
pub struct OpenSessions {
    /// Ordered, so that the same sessions end in the same order whenever they are told to.
    by_id: BTreeMap<SessionId, Open>,
    of_person: HashMap<PersonName, HashSet<SessionId>>,
}

impl OpenSessions {
    pub fn insert(&mut self, id: SessionId, open: Open) {
        let person = open.request.principal.name.clone();
        self.of_person.entry(person).or_default().insert(id);
        self.by_id.insert(id, open);
    }

    pub fn remove(&mut self, id: SessionId) -> Option<Open> {
        let open = self.by_id.remove(&id)?;
        let person = &open.request.principal.name;
        if let Some(sessions) = self.of_person.get_mut(person) {
            sessions.remove(&id);
            if sessions.is_empty() {
                self.of_person.remove(person);
            }
        }
        Some(open)
    }

    /// Those of a person whose relays are there: a relay that is gone counts no more, also before that was heard.
    pub fn count_of(&self, person: &PersonName) -> usize {
        let sessions = self.of_person.get(person).into_iter().flatten();
        sessions
            .filter(|id| self.by_id.get(id).is_some_and(|open| !open.end.is_closed()))
            .count()
    }

    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.by_id.keys().copied()
    }

    /// Forgets those whose relays are gone.
    pub fn sweep(&mut self) {
        let gone = self.by_id.iter().filter(|(_, open)| open.end.is_closed());
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    /// Takes out those of a database service.
    pub fn take_of(&mut self, service: &ServiceName) -> Vec<(SessionId, Open)> {
        let of_it = self.by_id.iter().filter(|(_, open)| open.request.service == *service);
        let ids: Vec<SessionId> = of_it.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| Some((id, self.remove(id)?))).collect()
    }

    pub fn drain(&mut self) -> impl Iterator<Item = (SessionId, Open)> {
        self.of_person.clear();
        std::mem::take(&mut self.by_id).into_iter()
    }

    pub fn contains(&self, id: SessionId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SessionId, &mut Open)> {
        self.by_id.iter_mut().map(|(id, open)| (*id, open))
    }

    pub fn values(&self) -> impl Iterator<Item = &Open> {
        self.by_id.values()
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
