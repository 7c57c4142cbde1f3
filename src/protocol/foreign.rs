//! What is not spoken on a node's port: recognised by its first bytes, and answered in words that its client can show.

/// First bytes that are looked at; what is recognised is recognised by fewer.
pub const LOOKED_AT: usize = 24;

/// What every answer says, as far as it can be said.
const WORDS: &str = "This port speaks PostgreSQL and HTTPS, both over TLS.";

/// What somebody speaks who is wrong here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    Http,
    /// Without TLS and without asking (RFC 9113, section 3.3).
    Http2,
    Ssh,
    Smtp,
    Rdp,
    ProxyHeader,
    /// Lines of something else.
    Text,
    Bytes,
}

/// How each begins.
const BEGINNINGS: &[(&[u8], Foreign)] = &[
    (b"PRI * HTTP/2.0\r\n", Foreign::Http2),
    (b"SSH-", Foreign::Ssh),
    (b"EHLO ", Foreign::Smtp),
    (b"HELO ", Foreign::Smtp),
    (b"PROXY ", Foreign::ProxyHeader),
    (b"\r\n\r\n\0\r\nQUIT\n", Foreign::ProxyHeader),
    // TPKT (RFC 1006, section 6), in which RDP begins.
    (b"\x03\x00", Foreign::Rdp),
    (b"GET ", Foreign::Http),
    (b"HEAD ", Foreign::Http),
    (b"POST ", Foreign::Http),
    (b"PUT ", Foreign::Http),
    (b"DELETE ", Foreign::Http),
    (b"CONNECT ", Foreign::Http),
    (b"OPTIONS ", Foreign::Http),
    (b"TRACE ", Foreign::Http),
    (b"PATCH ", Foreign::Http),
    (b"PROPFIND ", Foreign::Http),
];

/// What `first`, the bytes that have come so far, is the beginning of; `None` where that cannot be told yet.
pub fn recognise(first: &[u8]) -> Option<Foreign> {
    let whole = |(beginning, _): &&(&[u8], Foreign)| first.starts_with(beginning);
    if let Some((_, foreign)) = BEGINNINGS.iter().find(whole) {
        return Some(*foreign);
    }
    if BEGINNINGS.iter().any(|(beginning, _)| beginning.starts_with(first)) {
        return None;
    }
    Some(otherwise(first))
}

/// What it counts as when nothing more comes.
pub fn otherwise(first: &[u8]) -> Foreign {
    let is_text = |byte: &u8| (b' '..=b'~').contains(byte) || matches!(byte, b'\r' | b'\n' | b'\t');
    if first.iter().all(is_text) {
        Foreign::Text
    } else {
        Foreign::Bytes
    }
}

/// What is said to somebody who says nothing, when their time is over.
pub fn to_the_silent() -> Vec<u8> {
    Foreign::Text.answer()
}

impl Foreign {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP without TLS",
            Self::Http2 => "HTTP/2 without TLS",
            Self::Ssh => "SSH",
            Self::Smtp => "SMTP",
            Self::Rdp => "RDP",
            Self::ProxyHeader => "a PROXY protocol header, and proxy_protocol is off in proxy_service",
            Self::Text => "lines of text",
            Self::Bytes => "bytes of no protocol that is known here",
        }
    }

    /// What its client shows to a person, or at least writes into a log.
    pub fn answer(self) -> Vec<u8> {
        match self {
            Self::Http => format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
                 {WORDS} Use https://, or a PostgreSQL client with sslmode=verify-full.\n"
            )
            .into_bytes(),
            Self::Http2 => goaway(),
            Self::Ssh => ssh_disconnect(),
            Self::Smtp => format!("554 {WORDS}\r\n").into_bytes(),
            Self::Rdp => RDP_NEGOTIATION_FAILURE.to_vec(),
            Self::ProxyHeader | Self::Text | Self::Bytes => format!("{WORDS}\r\n").into_bytes(),
        }
    }
}

/// SETTINGS, which has to come first, and GOAWAY with INADEQUATE_SECURITY (RFC 9113, sections 6.5, 6.8 and 7).
fn goaway() -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const INADEQUATE_SECURITY: u8 = 0x0c;
    let length = u8::try_from(8 + WORDS.len()).unwrap_or(u8::MAX);
    let head = [0, 0, length, 7, 0, 0, 0, 0, 0];
    let last_stream_and_error = [0, 0, 0, 0, 0, 0, 0, INADEQUATE_SECURITY];
    [&SETTINGS[..], &head, &last_stream_and_error, WORDS.as_bytes()].concat()
}

/// An identification, and SSH_MSG_DISCONNECT with SSH_DISCONNECT_PROTOCOL_ERROR (RFC 4253, sections 4.2, 6 and 11.1).
fn ssh_disconnect() -> Vec<u8> {
    const BLOCK: usize = 8;
    const PADDING_MIN: usize = 4;
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let payload = [
        &[1][..],
        &[0, 0, 0, 2],
        &length(WORDS.len()),
        WORDS.as_bytes(),
        &length(0),
    ]
    .concat();
    let unpadded = 4 + 1 + payload.len() + PADDING_MIN;
    let padding = PADDING_MIN + unpadded.next_multiple_of(BLOCK) - unpadded;
    [
        &b"SSH-2.0-Postern\r\n"[..],
        &length(1 + payload.len() + padding),
        &[u8::try_from(padding).unwrap_or(u8::MAX)],
        &payload,
        &vec![0; padding],
    ]
    .concat()
}

/// TPKT, X.224 Connection Confirm, RDP_NEG_FAILURE with SSL_NOT_ALLOWED_BY_SERVER ([MS-RDPBCGR], section 2.2.1.2.2).
const RDP_NEGOTIATION_FAILURE: [u8; 19] = [
    0x03, 0x00, 0x00, 0x13, 0x0e, 0xd0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x08, 0x00, 0x02, 0x00, 0x00, 0x00,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_known_as_soon_as_it_can_be_and_not_before() {
        for (first, foreign) in [
            (&b"GET / HTTP/1.1\r\n"[..], Foreign::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Foreign::Http2),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", Foreign::Ssh),
            (b"EHLO mail.example\r\n", Foreign::Smtp),
            (b"\x03\x00\x00\x2f\x2a\xe0", Foreign::Rdp),
            (b"PROXY TCP4 192.0.2.1 ", Foreign::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Foreign::ProxyHeader),
            (b"USER anonymous\r\n", Foreign::Text),
            (b"\x80\x2e\x01\x00\x02", Foreign::Bytes),
            (b"\x01", Foreign::Bytes),
        ] {
            assert_eq!(recognise(first), Some(foreign), "{}", first.escape_ascii());
            let known_at = (1..=first.len()).find(|count| recognise(&first[..*count]).is_some());
            assert!(known_at.is_some_and(|count| count < LOOKED_AT));
        }
        assert_eq!(recognise(b"P"), None);
        assert_eq!(recognise(b""), None);
    }

    #[test]
    fn every_answer_has_the_form_of_its_protocol() {
        let text = |foreign: Foreign| String::from_utf8(foreign.answer()).expect("text");
        assert!(text(Foreign::Http).starts_with("HTTP/1.1 400 ") && text(Foreign::Http).contains("https://"));
        assert!(text(Foreign::Smtp).starts_with("554 "));
        assert!(text(Foreign::Bytes).ends_with("TLS.\r\n"));
        let http2 = Foreign::Http2.answer();
        assert_eq!((http2[3], http2[12]), (4, 7), "SETTINGS, then GOAWAY");
        assert_eq!(usize::from(http2[11]), http2.len() - 18, "its length");
        let ssh = Foreign::Ssh.answer();
        let packet = ssh.strip_prefix(b"SSH-2.0-Postern\r\n").expect("an identification");
        assert_eq!(packet.len() % 8, 0);
        let length = u32::from_be_bytes(packet[..4].try_into().unwrap());
        assert_eq!((length as usize, packet[5]), (packet.len() - 4, 1));
        let rdp = Foreign::Rdp.answer();
        assert_eq!((usize::from(rdp[3]), usize::from(rdp[4])), (rdp.len(), rdp.len() - 5));
    }
}
