//! A secret that travels between nodes: text on the wire, `[redacted]` in every log.

use crate::model::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A password, a code, or the token of a link.
#[derive(Debug, Clone)]
pub struct SecretText(pub Secret<String>);

impl From<Secret<String>> for SecretText {
    fn from(secret: Secret<String>) -> Self {
        Self(secret)
    }
}

/// Whether two messages are the same one. Nothing that is told to a peer depends on it.
impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose() == other.0.expose()
    }
}

impl Eq for SecretText {}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AuthToNode, ProxyToAuth};
    use super::*;

    #[test]
    fn the_secrets_of_a_message_are_not_printed() {
        let secret = || SecretText(Secret::new("hunter2".to_owned()));
        let asked = ProxyToAuth::AcceptInvite {
            token: secret(),
            password: secret(),
            code: secret(),
            client_address: "192.0.2.1:5000".to_owned(),
        };
        let answered = AuthToNode::Invitation {
            person: "alice".parse().unwrap(),
            is_reset: false,
            expires: crate::model::Timestamp::from_secs(0),
            otp_uri: secret(),
            otp_secret: secret(),
        };
        let printed = format!(
            "{asked:?} {answered:?} {:?}",
            ProxyToAuth::LookAtInvite { token: secret() }
        );
        assert!(
            printed.contains("[redacted]") && !printed.contains("hunter2"),
            "{printed}"
        );
    }
}
