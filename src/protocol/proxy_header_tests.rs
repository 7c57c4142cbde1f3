//! Headers as balancers write them, and as nobody should.

use super::*;

const V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

fn v2(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&V2[..], &[version_and_command, family], &length, rest].concat()
}

fn tcp4(rest: &[u8]) -> Vec<u8> {
    v2(
        0x21,
        0x11,
        &[&[192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 0x01, 0xbb], rest].concat(),
    )
}

/// All bytes at once, with what a client says behind them.
fn read(header: &[u8]) -> Result<Said, ProxyHeaderError> {
    let behind = [header, b"\0\0\0\x08\x04\xd2\x16\x2f"].concat();
    let (count, said) = HeaderReader::default().read(&behind)?;
    let said = said.expect("whole");
    assert_eq!(count, header.len(), "nothing behind the header is taken");
    Ok(said)
}

fn client(text: &str) -> Said {
    Said::Client(text.parse().expect("an address"))
}

#[test]
fn a_header_of_either_version_and_family_names_the_client() {
    let v6 = [
        &"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..],
        &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets(),
        &[0x13, 0x88, 0x01, 0xbb],
    ]
    .concat();
    for (header, expected) in [
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n".to_vec(),
            "192.0.2.7:5000",
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n".to_vec(),
            "[2001:db8::7]:5000",
        ),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 0 65535\r\n".to_vec(), "192.0.2.7:0"),
        (tcp4(&[]), "192.0.2.7:5000"),
        (tcp4(&[0x04, 0, 3, 1, 2, 3]), "192.0.2.7:5000"),
        (v2(0x21, 0x21, &v6), "[2001:db8::7]:5000"),
    ] {
        assert_eq!(read(&header), Ok(client(expected)), "{}", header.escape_ascii());
    }
}

#[test]
fn a_balancer_that_speaks_for_itself_or_knows_of_nobody_names_nobody() {
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(),
        v2(0x20, 0x00, &[]),
        // LOCAL with addresses, which do not count.
        v2(0x20, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0, 80, 1, 187]),
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x31, &[b'x'; 216]),
    ] {
        assert_eq!(read(&header), Ok(Said::Nobody), "{}", header.escape_ascii());
    }
}

#[test]
fn a_line_that_is_not_as_written_in_the_document_is_refused() {
    for line in [
        &b"PROXY \r\n"[..],
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443 \r\n",
        b"PROXY TCP4  192.0.2.7 198.51.100.1 5000 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 +500 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 0500 443\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 5000 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 5000 443\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 5000 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 5000 443\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 5000 443\r\n",
        b"PROXY tcp4 192.0.2.7 198.51.100.1 5000 443\r\n",
        b"PROXY TCP4 192.0.2.7\0 198.51.100.1 5000 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\r\n",
        b"PROXY UNKNOWN\n",
        b"PROXY \xff\r\n",
    ] {
        let refused = read(line).expect_err("refused");
        assert!(
            matches!(refused, ProxyHeaderError::Line(_)),
            "{}: {refused}",
            line.escape_ascii()
        );
    }
}

#[test]
fn a_line_without_an_end_is_refused_at_its_107th_byte() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX_BYTES - 16));
    assert_eq!(
        (longest.len(), read(longest.as_bytes())),
        (V1_MAX_BYTES, Ok(Said::Nobody))
    );
    let endless = [b"PROXY UNKNOWN ", &[b'x'; 500][..]].concat();
    let mut reader = HeaderReader::default();
    assert_eq!(reader.read(&endless[..V1_MAX_BYTES - 1]), Ok((V1_MAX_BYTES - 1, None)));
    assert_eq!(
        reader.read(&endless[V1_MAX_BYTES - 1..]),
        Err(ProxyHeaderError::TooLong)
    );
}

#[test]
fn what_version_2_reserves_is_refused_and_so_is_a_length_that_cannot_be() {
    let addresses = [0; 12];
    assert_eq!(read(&v2(0x11, 0x11, &addresses)), Err(ProxyHeaderError::Version(1)));
    assert_eq!(read(&v2(0x31, 0x11, &addresses)), Err(ProxyHeaderError::Version(3)));
    assert_eq!(read(&v2(0x22, 0x11, &addresses)), Err(ProxyHeaderError::Command(2)));
    for family in [0x01, 0x10, 0x12, 0x22, 0x32, 0x41, 0xff] {
        assert_eq!(
            read(&v2(0x21, family, &[0; 216])),
            Err(ProxyHeaderError::Family(family))
        );
    }
    for (family, length, need) in [
        (0x11, 11, 12),
        (0x21, 35, 36),
        (0x31, 215, 216),
        (0x11, V2_MAX_LENGTH + 1, 12),
    ] {
        let refused = read(&v2(0x21, family, &vec![0; length]));
        assert_eq!(refused, Err(ProxyHeaderError::Length { length, need }));
    }
    assert_eq!(read(&tcp4(&vec![0; V2_MAX_LENGTH - 12])), Ok(client("192.0.2.7:5000")));
}

#[test]
fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
    for (bytes, wrong) in [
        (&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], 0),
        (b"\x16\x03\x01\x02\x00", 0),
        (b"GET / HTTP/1.1\r\n", 0),
        (b"PRI * HTTP/2.0\r\n\r\n", 2),
        (b"PROXYTCP4", 5),
        (b"\r\n\r\n\0\r\nQUIT\r", 11),
    ] {
        let mut reader = HeaderReader::default();
        assert_eq!(
            reader.read(&bytes[..wrong]),
            Ok((wrong, None)),
            "{}",
            bytes.escape_ascii()
        );
        assert_eq!(
            reader.read(&bytes[wrong..]),
            Err(ProxyHeaderError::Missing),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn a_header_is_read_the_same_in_whatever_pieces_it_comes_and_little_of_it_is_kept() {
    let many = tcp4(&vec![7; V2_MAX_LENGTH - 12]);
    for header in [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n".to_vec(),
        tcp4(&[1, 2, 3]),
        many,
    ] {
        for size in [1, 2, 7, 13, 100] {
            let mut reader = HeaderReader::default();
            let mut said = None;
            for piece in header.chunks(size) {
                assert_eq!(said, None);
                let (count, heard) = reader.read(piece).expect("sound");
                assert_eq!(count, piece.len());
                said = heard;
            }
            assert_eq!(said, Some(client("192.0.2.7:5000")));
            assert!(reader.kept.len() <= V1_MAX_BYTES);
        }
    }
}
