//! When a certificate ends. Of X.509 nothing else is looked at: whether a certificate is right is the clients' part.

use std::time::SystemTime;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity; `None` if it is not where RFC 5280, 4.1 has it.
pub(super) fn expiry(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate)?;
    if let Some((VERSION, _, rest)) = element(fields) {
        fields = rest;
    }
    // Skips serial number, signature algorithm and issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (tag, time, _) = element(element(validity)?.2)?;
    let time = std::str::from_utf8(time).ok().filter(|time| time.is_ascii())?;
    let (century, time) = match tag {
        // Two digits of the year: up to 49 they are of this century.
        UTC_TIME if time.get(..2)? < "50" => ("20", time),
        UTC_TIME => ("19", time),
        GENERALIZED_TIME => time.split_at_checked(2)?,
        _ => return None,
    };
    let part = |start: usize| time.get(start..start + 2);
    let (year, month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, part(10)?);
    humantime::parse_rfc3339(&format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}Z")).ok()
}

/// The first element of DER: its tag, what it holds, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7F => (usize::from(first), der),
        // So many bytes of length follow.
        0x81..=0x84 => {
            let (bytes, der) = der.split_at_checked(usize::from(first & 0x7F))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), der)
        }
        _ => return None,
    };
    let (inside, after) = der.split_at_checked(length)?;
    Some((tag, inside, after))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_found_in_either_way_to_write_it() {
        for (year, month, day, expected) in
            [(2031, 2, 28, "2031-02-28T00:00:00Z"), (2051, 12, 1, "2051-12-01T00:00:00Z")]
        {
            let end = expiry(&certificate(year, month, day)).unwrap();
            assert_eq!(humantime::format_rfc3339(end).to_string(), expected);
        }
    }

    #[test]
    fn a_certificate_that_is_cut_short_tells_nothing() {
        let whole = certificate(2031, 2, 28);
        for length in 0..whole.len() {
            assert_eq!(expiry(&whole[..length]), None);
        }
    }
}
