//! Options of roles that bear on sessions, and what the options of all of a person's roles come to.

use super::error::{Problem, ResourceError};
use super::fields::{Fields, bad_value, scalar, truth};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// A year. A duration beyond it is a slip of the keyboard.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Options of Teleport's roles that this version does not enforce.
const OPTIONS_NOT_ENFORCED: &[&str] = &[
    "cert_extensions",
    "cert_format",
    "create_db_user",
    "create_db_user_mode",
    "create_desktop_user",
    "create_host_user",
    "create_host_user_default_shell",
    "create_host_user_mode",
    "desktop_clipboard",
    "desktop_directory_sharing",
    "device_trust_mode",
    "enhanced_recording",
    "forward_agent",
    "idp",
    "lock",
    "max_kubernetes_connections",
    "max_sessions",
    "mfa_verification_interval",
    "permit_x11_forwarding",
    "port_forwarding",
    "record_session",
    "request_access",
    "request_prompt",
    "require_session_mfa",
    "ssh_file_copy",
    "ssh_port_forwarding",
];

const TTL: &str = "max_session_ttl";
const IDLE: &str = "client_idle_timeout";
const EXPIRED: &str = "disconnect_expired_cert";
const CONNECTIONS: &str = "max_connections";
const PINNED: &str = "pin_source_ip";
const AUDIT: &str = "audit";
const STRICT: &str = "strict";
const DEFAULT: &str = "default";

/// The options of one role. `None` where the role does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleOptions {
    /// The longest life of a certificate.
    pub max_session_ttl: Option<Duration>,
    /// How long a session may rest. Zero is no limit.
    pub client_idle_timeout: Option<Duration>,
    /// A session ends when the certificate expires that it was opened with.
    pub disconnect_expired_cert: Option<bool>,
    /// Sessions of one person at a time. Zero is no limit.
    pub max_connections: Option<u32>,
    /// A certificate is good only at the address that it was issued to.
    pub pin_source_ip: Option<bool>,
    /// A statement goes on to PostgreSQL only when its audit event is on disk.
    pub strict_audit: Option<bool>,
}

/// What the options of all of a person's roles come to: always the strictest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SessionOptions {
    /// The smallest.
    pub max_session_ttl: Option<Duration>,
    /// The smallest that is not zero.
    pub client_idle_timeout: Option<Duration>,
    /// Any role.
    pub disconnect_expired_cert: bool,
    /// The smallest that is not zero.
    pub max_connections: Option<NonZeroU32>,
    /// Any role.
    pub pin_source_ip: bool,
    /// Any role.
    pub strict_audit: bool,
}

impl RoleOptions {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ResourceError> {
        fields.only(
            &[TTL, IDLE, EXPIRED, CONNECTIONS, PINNED, AUDIT],
            "option",
            OPTIONS_NOT_ENFORCED,
        )?;
        let max_session_ttl = read_duration(fields, TTL)?;
        if max_session_ttl.is_some_and(|ttl| ttl.is_zero()) {
            let node = fields.require(TTL)?;
            let (place, value) = (fields.below(TTL), scalar(node, TTL)?);
            return Err(bad_duration(place, value, "it must be longer than nothing").at(node.at));
        }
        Ok(Self {
            max_session_ttl,
            client_idle_timeout: read_duration(fields, IDLE)?,
            disconnect_expired_cert: truth(fields, EXPIRED)?,
            max_connections: read_number(fields, CONNECTIONS)?,
            pin_source_ip: truth(fields, PINNED)?,
            strict_audit: read_audit(fields)?,
        })
    }

    pub(super) fn to_value(&self) -> Value {
        let duration = |value: Option<Duration>| value.map(|d| Value::from(Compact(d).to_string()));
        let fields = [
            (TTL, duration(self.max_session_ttl)),
            (IDLE, duration(self.client_idle_timeout)),
            (EXPIRED, self.disconnect_expired_cert.map(Value::from)),
            (CONNECTIONS, self.max_connections.map(Value::from)),
            (PINNED, self.pin_source_ip.map(Value::from)),
            (
                AUDIT,
                self.strict_audit
                    .map(|strict| Value::from(if strict { STRICT } else { DEFAULT })),
            ),
        ];
        let said = fields
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        said.collect::<Map<_, _>>().into()
    }
}

impl SessionOptions {
    /// The strictest of each option.
    pub(super) fn strictest<'a>(roles: impl Iterator<Item = &'a RoleOptions>) -> Self {
        roles.fold(Self::default(), |merged, role| merged.and(&Self::of(role)))
    }

    /// Those of one role alone.
    pub(super) fn of(role: &RoleOptions) -> Self {
        Self {
            max_session_ttl: role.max_session_ttl,
            client_idle_timeout: role.client_idle_timeout.filter(|limit| !limit.is_zero()),
            disconnect_expired_cert: role.disconnect_expired_cert.unwrap_or(false),
            max_connections: role.max_connections.and_then(NonZeroU32::new),
            pin_source_ip: role.pin_source_ip.unwrap_or(false),
            strict_audit: role.strict_audit.unwrap_or(false),
        }
    }

    fn and(&self, other: &Self) -> Self {
        fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            max_session_ttl: smaller(self.max_session_ttl, other.max_session_ttl),
            client_idle_timeout: smaller(self.client_idle_timeout, other.client_idle_timeout),
            disconnect_expired_cert: self.disconnect_expired_cert || other.disconnect_expired_cert,
            max_connections: smaller(self.max_connections, other.max_connections),
            pin_source_ip: self.pin_source_ip || other.pin_source_ip,
            strict_audit: self.strict_audit || other.strict_audit,
        }
    }

    /// Each option that is set, by its name in a role, with its value in a role's spelling.
    pub(super) fn set(&self) -> impl Iterator<Item = (&'static str, String)> {
        let duration = |value: Option<Duration>| value.map(|d| Compact(d).to_string());
        let truth = |value: bool| value.then(|| "true".to_owned());
        [
            (TTL, duration(self.max_session_ttl)),
            (IDLE, duration(self.client_idle_timeout)),
            (EXPIRED, truth(self.disconnect_expired_cert)),
            (CONNECTIONS, self.max_connections.map(|n| n.to_string())),
            (PINNED, truth(self.pin_source_ip)),
            (AUDIT, self.strict_audit.then(|| STRICT.to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

fn read_duration(fields: &Fields<'_>, key: &str) -> Result<Option<Duration>, ResourceError> {
    let Some(node) = fields.get(key) else {
        return Ok(None);
    };
    let place = fields.below(key);
    let value = scalar(node, &place)?;
    if key == IDLE && matches!(value, "0" | "never") {
        return Ok(Some(Duration::ZERO));
    }
    let parsed = parse_duration(value);
    parsed
        .map(Some)
        .map_err(|reason| bad_duration(place, value, reason).at(node.at))
}

fn bad_duration(place: String, value: &str, reason: &'static str) -> ResourceError {
    let value = value.to_owned();
    ResourceError::new(Problem::BadDuration { place, value, reason })
}

fn read_audit(fields: &Fields<'_>) -> Result<Option<bool>, ResourceError> {
    let Some(node) = fields.get(AUDIT) else {
        return Ok(None);
    };
    let place = fields.below(AUDIT);
    match scalar(node, &place)? {
        STRICT => Ok(Some(true)),
        DEFAULT => Ok(Some(false)),
        other => Err(bad_value(
            &place,
            other,
            "statements are audited always; write strict for on disk before they run, or default",
            node.at,
        )),
    }
}

fn read_number(fields: &Fields<'_>, key: &str) -> Result<Option<u32>, ResourceError> {
    let Some(node) = fields.get(key) else {
        return Ok(None);
    };
    let place = fields.below(key);
    let value = scalar(node, &place)?;
    let parsed = value.parse();
    parsed.map(Some).map_err(|_| {
        bad_value(
            &place,
            value,
            format!("a whole number from 0 (no limit) to {} is expected", u32::MAX),
            node.at,
        )
    })
}

/// Hours, minutes and seconds, whole, the largest first: `30h`, `8h30m`, `90m`.
fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut units = [('h', 3600), ('m', 60), ('s', 1)].iter();
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or("a unit is missing (h, m or s)")?;
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number
            .parse()
            .map_err(|_| "a whole number is expected before each unit")?;
        let unit_char = unit.chars().next().ok_or("a unit is missing (h, m or s)")?;
        let (_, factor) = units
            .find(|(u, _)| *u == unit_char)
            .ok_or("units are h, m and s, each at most once and in this order")?;
        seconds = number
            .checked_mul(*factor)
            .and_then(|s| seconds.checked_add(s))
            .ok_or("it is longer than 8760h, a year")?;
        rest = &unit[unit_char.len_utf8()..];
    }
    match Duration::from_secs(seconds) {
        long if long > MAX_DURATION => Err("it is longer than 8760h, a year"),
        duration => Ok(duration),
    }
}

/// A duration in the form that `parse_duration` reads.
pub(super) struct Compact(pub Duration);

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds == 0 {
            return f.write_str("0s");
        }
        for (amount, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')] {
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
            }
        }
        Ok(())
    }
}
