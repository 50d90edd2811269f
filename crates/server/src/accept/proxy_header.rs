//! The PROXY protocol's header, versions 1 and 2: a proxy that passes on bytes says with it whose they are. Read to its last
//! byte and no further: what follows is TLS or HTTP.
//!
//! Source: "The PROXY protocol, versions 1 & 2", the document `proxy-protocol.txt`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::PROXY_HEADER_BYTES;

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";
/// The longest line of version 1, its end included.
const LINE_BYTES: usize = 107;
/// The field of version 2 that tells of the client's TLS, and the bit in it that says there was some.
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 0x01;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whose connection it is; `None`: the proxy's own, such as a health check, or of a kind without IP addresses.
    pub(super) client: Option<SocketAddr>,
    /// The client spoke TLS with the proxy.
    pub(super) tls: bool,
}

/// Takes the header from the front of a connection.
///
/// # Errors
/// There is none, it makes no sense, or it is longer than [`PROXY_HEADER_BYTES`].
pub(super) async fn read(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<Header> {
    // As long as the beginning of version 2, and shorter than any line of version 1.
    let mut start = [0; SIGNATURE.len()];
    socket.read_exact(&mut start).await?;
    if start == SIGNATURE {
        read_binary(socket).await
    } else if start.starts_with(WORD) {
        read_line(socket, start.to_vec()).await
    } else {
        Err(malformed("it begins with something else than a PROXY header"))
    }
}

async fn read_line(socket: &mut (impl AsyncRead + Unpin), mut line: Vec<u8>) -> io::Result<Header> {
    while !line.ends_with(b"\n") {
        if line.len() >= LINE_BYTES {
            return Err(malformed("the line of version 1 is too long"));
        }
        line.push(socket.read_u8().await?);
    }
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    parse_line(line).ok_or_else(|| malformed("the line of version 1 makes no sense"))
}

/// `PROXY TCP4 192.0.2.7 10.0.0.1 56324 443`
fn parse_line(line: &str) -> Option<Header> {
    let words: Vec<_> = line.split(' ').collect();
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |address: &str, port: &str| {
                let address: IpAddr = address.parse().ok()?;
                (address.is_ipv4() == (family == "TCP4")).then_some(SocketAddr::new(address, port.parse().ok()?))
            };
            address(destination, destination_port)?;
            Some(address(source, source_port)?)
        }
        _ => return None,
    };
    Some(Header { client, tls: false })
}

async fn read_binary(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<Header> {
    let (command, family) = (socket.read_u8().await?, socket.read_u8().await?);
    let length = usize::from(socket.read_u16().await?);
    if length > PROXY_HEADER_BYTES {
        return Err(malformed("version 2 announces more than the bound"));
    }
    let mut rest = vec![0; length];
    socket.read_exact(&mut rest).await?;
    match command {
        0x20 => Ok(Header { client: None, tls: false }),
        0x21 => parse_binary(family, &rest).ok_or_else(|| malformed("the addresses of version 2 are cut short")),
        _ => Err(malformed("neither version 2 nor a command of it")),
    }
}

/// Addresses of the family, then fields of type, length and value.
fn parse_binary(family: u8, rest: &[u8]) -> Option<Header> {
    let (client, fields) = match family {
        // TCP over IPv4: source and destination, then their ports.
        0x11 => {
            let (addresses, fields) = rest.split_first_chunk::<12>()?;
            let address = Ipv4Addr::from(*addresses.first_chunk()?);
            let port = u16::from_be_bytes([addresses[8], addresses[9]]);
            (Some(SocketAddr::new(address.into(), port)), fields)
        }
        // TCP over IPv6.
        0x21 => {
            let (addresses, fields) = rest.split_first_chunk::<36>()?;
            let address = Ipv6Addr::from(*addresses.first_chunk()?);
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            (Some(SocketAddr::new(address.into(), port)), fields)
        }
        // Unix sockets.
        0x31 => (None, rest.split_first_chunk::<216>()?.1),
        // Anything else has no addresses for us, and what its fields are is not known.
        _ => return Some(Header { client: None, tls: false }),
    };
    let ssl = field(fields, TYPE_SSL).and_then(<[u8]>::first);
    Some(Header { client, tls: ssl.is_some_and(|bits| bits & CLIENT_SSL != 0) })
}

/// The value of the first field of a type.
fn field(mut fields: &[u8], wanted: u8) -> Option<&[u8]> {
    while let Some(([kind, high, low], rest)) = fields.split_first_chunk() {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        if *kind == wanted {
            return Some(value);
        }
        fields = rest;
    }
    None
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(mut bytes: &[u8]) -> Result<(Header, &[u8]), String> {
        let header = read(&mut bytes).await.map_err(|error| error.to_string())?;
        Ok((header, bytes))
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE, &[command, family][..], &length, rest, b"GET /"].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xDC, 0x04, 0x01, 0xBB];

    #[tokio::test]
    async fn a_line_is_read_to_its_end() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", Some("192.0.2.7:56324")),
            ("PROXY TCP6 2001:db8::7 ::1 56324 443\r\n", Some("[2001:db8::7]:56324")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            let bytes = format!("{line}GET /");
            let (header, rest) = parse(bytes.as_bytes()).await.unwrap();
            assert_eq!(header, Header { client: expected.map(|text| text.parse().unwrap()), tls: false });
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn a_binary_header_is_read_to_its_end() {
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 80, 0, 81]].concat();
        let other = [0x02, 0, 1, b'x'];
        let ssl = |bits| [&V4[..], &other, &[TYPE_SSL, 0, 5, bits, 0, 0, 0, 0]].concat();
        for (bytes, client, tls) in [
            (binary(0x21, 0x11, &V4), Some("192.0.2.7:56324"), false),
            (binary(0x21, 0x21, &v6), Some("[::1]:80"), false),
            (binary(0x21, 0x11, &ssl(1)), Some("192.0.2.7:56324"), true),
            (binary(0x21, 0x11, &ssl(0)), Some("192.0.2.7:56324"), false),
            (binary(0x21, 0x31, &[0; 216]), None, false),
            (binary(0x21, 0x00, &[]), None, false),
            (binary(0x20, 0x11, &V4), None, false),
            (binary(0x20, 0x00, &[]), None, false),
            // A field that claims to be longer than the header tells nothing.
            (binary(0x21, 0x11, &[&V4[..], &[TYPE_SSL, 0, 9, 1]].concat()), Some("192.0.2.7:56324"), false),
        ] {
            let (header, rest) = parse(&bytes).await.unwrap();
            assert_eq!(header, Header { client: client.map(|text| text.parse().unwrap()), tls });
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES));
        for bytes in [
            b"GET /up HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 70000 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443\n".to_vec(),
            b"PROXY SCTP 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 ".to_vec(),
            long.into_bytes(),
            binary(0x21, 0x11, &V4[..11]),
            binary(0x21, 0x21, &V4),
            binary(0x31, 0x11, &V4),
            binary(0x22, 0x11, &V4),
            binary(0x21, 0x11, &[0; PROXY_HEADER_BYTES + 1]),
            SIGNATURE.to_vec(),
        ] {
            assert!(parse(&bytes).await.is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
