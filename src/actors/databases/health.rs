//! Whether PostgreSQL can be reached, from one look to the next.

use crate::model::{ServiceName, Timestamp};
use crate::protocol::tunnel::{DatabaseHealth, HealthState};
use std::time::Duration;

/// The reference's interval.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A database that is away is waited for: whoever needs it does not wait a minute more than it was down.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Looks in a row that have to succeed before a database that was unhealthy is believed; the reference's threshold. One that
/// was never looked at needs one.
const HEALTHY_AFTER: u32 = 2;
/// A server's certificate that ends sooner is warned of: time enough to find whoever can renew it.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What a look came to: the end of the certificate that was presented, or what is wrong in a sentence.
pub type Look = Result<Option<Timestamp>, String>;

#[derive(Debug, Clone)]
pub struct Health {
    state: HealthState,
    since: Timestamp,
    detail: String,
    certificate_until: Option<Timestamp>,
    in_a_row: u32,
    warned: Option<Timestamp>,
}

impl Health {
    pub fn unknown(now: Timestamp) -> Self {
        Self {
            state: HealthState::Unknown,
            since: now,
            detail: String::new(),
            certificate_until: None,
            in_a_row: 0,
            warned: None,
        }
    }

    /// Takes a look into account; true when the state is another than before.
    pub fn looked(&mut self, look: Look, now: Timestamp) -> bool {
        let state = match look {
            Ok(until) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.certificate_until = until.or(self.certificate_until);
                match self.state {
                    HealthState::Unhealthy if self.in_a_row < HEALTHY_AFTER => HealthState::Unhealthy,
                    _ => {
                        self.detail.clear();
                        HealthState::Healthy
                    }
                }
            }
            Err(detail) => {
                self.in_a_row = 0;
                self.detail = detail;
                HealthState::Unhealthy
            }
        };
        let changed = state != self.state;
        if changed {
            self.state = state;
            self.since = now;
        }
        changed
    }

    /// When the next look is due, from now.
    pub fn next_look(&self) -> Duration {
        match self.state {
            HealthState::Unhealthy => LOOK_AGAIN,
            HealthState::Unknown | HealthState::Healthy => LOOK_EVERY,
        }
    }

    /// The end of the certificate, when it is near and today's warning has not been given yet.
    pub fn warn_of_end(&mut self, now: Timestamp) -> Option<Timestamp> {
        let until = self.certificate_until?;
        let is_due = self.warned.is_none_or(|warned| now.since(warned) >= WARN_EVERY);
        if until.since(now) >= WARN_BEFORE || !is_due {
            return None;
        }
        self.warned = Some(now);
        Some(until)
    }

    pub fn state(&self) -> HealthState {
        self.state
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn record(&self, service: &ServiceName) -> DatabaseHealth {
        DatabaseHealth {
            service: service.clone(),
            state: self.state,
            since: self.since,
            detail: self.detail.clone(),
            certificate_until: self.certificate_until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_first_look_decides_and_a_database_that_was_away_is_believed_after_two() {
        let mut health = Health::unknown(NOW);
        assert_eq!(health.state(), HealthState::Unknown);
        assert!(health.looked(Ok(None), NOW + DAY));
        assert_eq!(health.state(), HealthState::Healthy);
        assert!(!health.looked(Ok(None), NOW + DAY));

        assert!(health.looked(Err("connection refused at db:5432".to_owned()), NOW + DAY * 2));
        assert_eq!(
            (health.state(), health.detail()),
            (HealthState::Unhealthy, "connection refused at db:5432")
        );
        assert!(health.next_look() < LOOK_EVERY);
        assert!(!health.looked(Ok(None), NOW + DAY * 3));
        assert!(
            !health.looked(Err("again".to_owned()), NOW + DAY * 3),
            "the row was broken"
        );
        assert!(!health.looked(Ok(None), NOW + DAY * 3));
        assert_eq!(health.state(), HealthState::Unhealthy);
        assert!(health.looked(Ok(None), NOW + DAY * 4));
        assert_eq!((health.state(), health.detail()), (HealthState::Healthy, ""));
        let service = ServiceName::new("orders").expect("valid");
        assert_eq!(health.record(&service).since, NOW + DAY * 4);
    }

    #[test]
    fn a_certificate_that_ends_within_thirty_days_is_warned_of_once_a_day() {
        let mut health = Health::unknown(NOW);
        assert_eq!(health.warn_of_end(NOW), None, "nothing is known of it");
        let until = NOW + DAY * 40;
        health.looked(Ok(Some(until)), NOW);
        assert_eq!(health.warn_of_end(NOW + DAY * 9), None);
        let eleventh = NOW + DAY * 11;
        assert_eq!(health.warn_of_end(eleventh), Some(until));
        assert_eq!(health.warn_of_end(eleventh + DAY / 2), None);
        assert_eq!(health.warn_of_end(eleventh + DAY), Some(until));
        health.looked(Ok(Some(NOW + DAY * 400)), eleventh + DAY);
        assert_eq!(health.warn_of_end(eleventh + DAY * 3), None, "it was renewed");
    }
}
