//! One-time codes: TOTP (RFC 6238) with SHA-1, six digits and steps of 30 seconds, which is what every authenticator app speaks.

use crate::model::{ClusterName, PersonName, Secret, Timestamp, percent_encoded};
use crate::pki::entropy;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
use data_encoding::BASE32_NOPAD;

/// The recommended length for HMAC-SHA-1 (RFC 4226, section 4, R6).
const SECRET_BYTES: usize = 20;
pub(super) const STEP_SECS: i64 = 30;
const DIGITS: usize = 6;
/// What a person may type around six digits; longer texts are not looked at.
pub(super) const CODE_BYTES_MAX: usize = 16;
/// Steps before and after the present one that are taken: for clocks that differ, and for the time that typing takes
/// (RFC 6238, section 5.2).
const STEPS_AROUND: i64 = 1;

/// The secret that auth and the person's app share.
pub(super) struct CodeSecret(Secret<Vec<u8>>);

impl CodeSecret {
    pub fn generate() -> Self {
        Self(Secret::new(entropy::bytes::<SECRET_BYTES>().to_vec()))
    }

    pub fn from_bytes(bytes: Secret<Vec<u8>>) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        self.0.expose()
    }

    pub fn base32(&self) -> Secret<String> {
        Secret::new(BASE32_NOPAD.encode(self.bytes()))
    }

    /// `otpauth://totp/CLUSTER:PERSON?…`, the form of the key-URI format that apps read from a picture.
    pub fn uri(&self, cluster: &ClusterName, person: &PersonName) -> Secret<String> {
        let issuer = percent_encoded(cluster.as_str());
        Secret::new(format!(
            "otpauth://totp/{issuer}:{}?secret={}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={STEP_SECS}",
            percent_encoded(person.as_str()),
            self.base32().expose()
        ))
    }

    /// The step whose code this is, if it is one of those around `now`. All of them are compared, each in constant time.
    pub fn step_of(&self, code: &str, now: Timestamp) -> Option<i64> {
        let typed = digits(code)?;
        let present = now.as_secs().div_euclid(STEP_SECS);
        let mut found = None;
        for step in present - STEPS_AROUND..=present + STEPS_AROUND {
            if verify_slices_are_equal(&self.code_at(step), &typed).is_ok() {
                found = Some(step);
            }
        }
        found
    }

    /// RFC 4226, section 5.3.
    pub fn code_at(&self, step: i64) -> [u8; DIGITS] {
        let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.bytes());
        let tag = sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag.last().copied().unwrap_or(0) & 0x0f);
        let mut number = [0; 4];
        for (to, from) in number.iter_mut().zip(tag.iter().skip(offset)) {
            *to = *from;
        }
        let mut number = u32::from_be_bytes(number) & 0x7fff_ffff;
        let mut code = [b'0'; DIGITS];
        for digit in code.iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
        code
    }
}

/// Six digits; apps show them in two groups, so that spaces do not count.
fn digits(code: &str) -> Option<[u8; DIGITS]> {
    if code.len() > CODE_BYTES_MAX {
        return None;
    }
    let typed: Vec<u8> = code.bytes().filter(|byte| *byte != b' ').collect();
    let code: [u8; DIGITS] = typed.try_into().ok()?;
    code.iter().all(u8::is_ascii_digit).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> CodeSecret {
        CodeSecret::from_bytes(Secret::new(b"12345678901234567890".to_vec()))
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        // RFC 6238, appendix B, the last six of its eight digits.
        for (at, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret().code_at(at / 30), code.as_bytes());
            assert_eq!(secret().step_of(code, Timestamp::from_secs(at)), Some(at / 30));
        }
    }

    #[test]
    fn a_code_is_taken_one_step_early_and_one_late_and_not_two() {
        let at = |secs| secret().step_of("050471", Timestamp::from_secs(secs));
        let first = 1_111_111_110;
        assert_eq!(at(first - 31), None);
        assert_eq!(at(first - 30), Some(first / 30));
        assert_eq!(at(first + 59), Some(first / 30));
        assert_eq!(at(first + 60), None);
    }

    #[test]
    fn spaces_do_not_count_and_nothing_else_is_a_code() {
        let at = Timestamp::from_secs(1_111_111_111);
        assert!(secret().step_of(" 050 471 ", at).is_some());
        for not in ["", "05047", "0504711", "05047x", "٠٥٠٤٧١", "0 5 0 4 7 1           "] {
            assert_eq!(secret().step_of(not, at), None, "{not:?}");
        }
    }

    #[test]
    fn the_uri_is_what_apps_read() {
        let uri = secret().uri(
            &ClusterName::new("gate.example").unwrap(),
            &PersonName::new("a+b@example.com").unwrap(),
        );
        assert_eq!(
            uri.expose(),
            "otpauth://totp/gate.example:a%2Bb%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=gate.example\
             &algorithm=SHA1&digits=6&period=30"
        );
    }
}
