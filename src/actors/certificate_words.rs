//! What a client reads when its certificate is not accepted, by the proxy or by the agent.

use crate::model::{Refusal, RefusalKind};
use crate::pki::CertificateError;

const NEXT: &str = "log in with `postern login` and `postern db login DATABASE`, or ask an administrator for a certificate: \
                    postern ctl auth sign --format=file --user=NAME --db-service=DATABASE --out=FILE";

pub fn certificate_refusal(error: &CertificateError) -> Refusal {
    match error {
        CertificateError::Missing => Refusal::new(
            RefusalKind::CertificateInvalid,
            "no client certificate was presented; it takes one to log in here",
        )
        .hint(format!("set sslcert and sslkey; if you have none, {NEXT}")),
        CertificateError::Expired { at } => Refusal::new(
            RefusalKind::CertificateExpired,
            format!("the client certificate expired at {at}"),
        )
        .hint(format!("get a new one: {NEXT}")),
        other => Refusal::new(
            RefusalKind::CertificateInvalid,
            format!("the client certificate is not accepted: {other}"),
        )
        .hint(NEXT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn an_expired_certificate_is_named_with_its_end_and_the_next_command() {
        let at = Timestamp::from_secs(1_700_000_000);
        let refusal = certificate_refusal(&CertificateError::Expired { at });
        assert_eq!(refusal.kind.sqlstate(), "28000");
        assert!(refusal.message.contains("2023-11-14T22:13:20.000Z"), "{refusal}");
        let hint = refusal.hint.unwrap_or_default();
        assert!(
            hint.contains("`postern login`") && hint.contains("postern ctl auth sign"),
            "{hint}"
        );
    }
}
