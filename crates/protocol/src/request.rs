//! Signatures of HTTP API requests.
//!
//! SDKs differ in what they percent-encode on the wire, and sign what was there before. So a request is verified as it
//! most likely was signed, and only on a mismatch in the other ways that real SDKs sign.

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

use hmac::Mac;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use crate::{Signer, limits, signature};

/// The parameters of a query, percent-decoded, keys in lower case and sorted; of equal keys the last one counts.
#[derive(Debug, Default)]
pub struct Query<'a> {
    pairs: Vec<(Bytes<'a>, Bytes<'a>)>,
}

/// A decoded key or value, which need not be UTF-8.
type Bytes<'a> = Cow<'a, [u8]>;

impl<'a> Query<'a> {
    /// Splits a raw query. Nothing is refused: a stray `%` stays, and so does `+`, which SDKs sign as it is.
    pub fn parse(raw: &'a str) -> Self {
        let mut pairs: Vec<_> = raw
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (lower(decode(key)), decode(value))
            })
            .collect();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|later, earlier| {
            // Array parameters (`channels[]`) repeat on purpose.
            let same = later.0 == earlier.0 && !later.0.ends_with(b"[]");
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self { pairs }
    }

    /// A parameter's value as text.
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        self.bytes(key).map(String::from_utf8_lossy)
    }

    fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(name, _)| **name == *key.as_bytes()).map(|(_, value)| &**value)
    }

    /// Feeds `k=v&k=v` to `part`, without the signature.
    fn signed(&self, plus_is_space: bool, mut part: impl FnMut(&[u8])) {
        let mut separator: &[u8] = b"";
        for (key, value) in self.pairs.iter().filter(|(key, _)| **key != *b"auth_signature") {
            part(separator);
            part(key);
            part(b"=");
            if plus_is_space && value.contains(&b'+') {
                part(&value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect::<Vec<_>>());
            } else {
                part(value);
            }
            separator = b"&";
        }
    }
}

fn decode(text: &str) -> Bytes<'_> {
    if text.contains('%') { percent_decode(text.as_bytes()).into() } else { Cow::Borrowed(text.as_bytes()) }
}

fn lower(key: Bytes<'_>) -> Bytes<'_> {
    if key.iter().any(u8::is_ascii_uppercase) { Cow::Owned(key.to_ascii_lowercase()) } else { key }
}

/// A request as it came in.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The path on the wire.
    pub path: &'a str,
    /// The server's path prefix, which SDKs may or may not have signed; empty if there is none.
    pub prefix: &'a str,
    /// The parameters.
    pub query: &'a Query<'a>,
    /// The raw body, of which `body_md5` speaks.
    pub body: &'a [u8],
}

/// Why a request is refused. The texts are pusher.com's; SDKs show them to the developer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No `auth_key`, or no `auth_signature`.
    #[error("Missing parameter: {0}")]
    Missing(&'static str),
    /// No app has this key, or another app than the path says.
    #[error("Unknown auth_key")]
    UnknownKey,
    /// No `auth_version`.
    #[error("Version required")]
    VersionRequired,
    /// Another `auth_version` than `1.0`.
    #[error("Version not supported")]
    VersionNotSupported,
    /// No `auth_timestamp`, or not a number.
    #[error("Timestamp required")]
    TimestampRequired,
    /// Too far from the server's clock.
    #[error(
        "Timestamp expired: Given timestamp ({}) not within {}s of server time ({})",
        rfc3339(*given), limits::AUTH_WINDOW.as_secs(), rfc3339(*now)
    )]
    TimestampExpired {
        /// Unix seconds of the request.
        given: u64,
        /// Unix seconds of the server.
        now: u64,
    },
    /// There is a body and no `body_md5`.
    #[error("Missing parameter: body_md5 (the request has a body)")]
    BodyMd5Missing,
    /// The body is not the one that was signed.
    #[error("Invalid body_md5: the body's MD5 is \"{actual}\", but you sent \"{given}\"")]
    BodyMd5 {
        /// Of the body as received.
        actual: String,
        /// As signed.
        given: String,
    },
    /// The signature does not fit.
    #[error(
        "Invalid signature: you should have sent HmacSHA256Hex(\"{}\", your_secret_key), but you sent \"{given}\"",
        string_to_sign.replace('\n', "\\n")
    )]
    Signature {
        /// What should have been signed.
        string_to_sign: String,
        /// What came instead.
        given: String,
    },
}

fn rfc3339(seconds: u64) -> String {
    // The year 9999 is as far as the format goes.
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(time).to_string()
}

impl SignedRequest<'_> {
    /// Verifies everything that was signed, in the order of pusher.com's checks.
    ///
    /// `now` is Unix seconds; `auth_timestamp` may differ from it by less than [`limits::AUTH_WINDOW`]. `signer` finds the
    /// prepared secret of a key that belongs to the app of the path. `body_md5` is part of the signed text whenever it was
    /// sent, whatever the method: the Python SDK sends the MD5 of nothing on GET.
    /// Source: Channels documentation, HTTP API, "Generating authentication signatures", and the SDKs.
    ///
    /// # Errors
    /// [`RequestError`], whose text is the answer's body.
    pub fn verify<'s>(&self, now: u64, signer: impl FnOnce(&str) -> Option<&'s Signer>) -> Result<(), RequestError> {
        let key = self.query.get("auth_key").ok_or(RequestError::Missing("auth_key"))?;
        let signer = signer(&key).ok_or(RequestError::UnknownKey)?;
        match self.query.bytes("auth_version") {
            Some(b"1.0") => {}
            Some(_) => return Err(RequestError::VersionNotSupported),
            None => return Err(RequestError::VersionRequired),
        }
        let given = self.query.get("auth_timestamp").and_then(|text| text.parse().ok());
        let given: u64 = given.ok_or(RequestError::TimestampRequired)?;
        if now.abs_diff(given) >= limits::AUTH_WINDOW.as_secs() {
            return Err(RequestError::TimestampExpired { given, now });
        }
        let signature = self.query.get("auth_signature").ok_or(RequestError::Missing("auth_signature"))?;
        self.verify_body()?;
        if let Some(digest) = signature::digest(&signature)
            && self.ways().any(|(path, plus_is_space)| self.is_signed(signer, &path, plus_is_space, &digest))
        {
            return Ok(());
        }
        let mut string_to_sign = format!("{}\n{}\n", self.method, self.path).into_bytes();
        self.query.signed(false, |part| string_to_sign.extend_from_slice(part));
        Err(RequestError::Signature {
            string_to_sign: String::from_utf8_lossy(&string_to_sign).into_owned(),
            given: signature.into_owned(),
        })
    }

    fn verify_body(&self) -> Result<(), RequestError> {
        let Some(given) = self.query.bytes("body_md5") else {
            return if self.body.is_empty() { Ok(()) } else { Err(RequestError::BodyMd5Missing) };
        };
        let digest = Md5::digest(self.body);
        let mut expected = [0; 16];
        if hex::decode_to_slice(given, &mut expected).is_ok() && expected == *digest {
            return Ok(());
        }
        let given = String::from_utf8_lossy(given).into_owned();
        Err(RequestError::BodyMd5 { actual: hex::encode(digest), given })
    }

    /// The ways an SDK may have signed, likeliest first: path with or without the prefix, raw or decoded; `+` as it is or as a
    /// space. Lazy: the first usually fits.
    fn ways(&self) -> impl Iterator<Item = (Cow<'_, str>, bool)> {
        let without = Some(self.prefix).filter(|prefix| !prefix.is_empty());
        let without = without.and_then(|prefix| self.path.strip_prefix(prefix));
        [Some(self.path), without].into_iter().flatten().flat_map(|path| {
            let decoded = path.contains('%').then(|| percent_decode(path.as_bytes()).decode_utf8_lossy());
            [Some(Cow::Borrowed(path)), decoded]
                .into_iter()
                .flatten()
                .flat_map(|path| [(path.clone(), false), (path, true)])
        })
    }

    fn is_signed(&self, signer: &Signer, path: &str, plus_is_space: bool, digest: &[u8; 32]) -> bool {
        if plus_is_space && !self.query.pairs.iter().any(|(_, value)| value.contains(&b'+')) {
            return false;
        }
        let mut mac = signer.update(&[self.method.as_bytes(), b"\n", path.as_bytes(), b"\n"]);
        self.query.signed(plus_is_space, |part| mac.update(part));
        mac.verify_slice(digest).is_ok()
    }
}

/// Signs a request as the SDKs do and returns the query to send, for clients of the HTTP API.
///
/// `path` and `params` are as they shall be signed: not percent-encoded. The returned query is percent-encoded.
pub fn signed_query(
    signer: &Signer,
    key: &str,
    method: &str,
    path: &str,
    params: &[(&str, &str)],
    body: &[u8],
    now: u64,
) -> String {
    let timestamp = now.to_string();
    let md5 = hex::encode(Md5::digest(body));
    let mut pairs = params.to_vec();
    // Last, as the last of equal keys counts.
    pairs.extend([("auth_key", key), ("auth_timestamp", &timestamp), ("auth_version", "1.0")]);
    if !body.is_empty() {
        pairs.push(("body_md5", &md5));
    }
    let encode = |text| utf8_percent_encode(text, UNRESERVED);
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    let query = pairs.join("&");
    // Signed is what the server will read, so that both agree on keys in upper case, on equal keys and on their order.
    let mut mac = signer.update(&[method.as_bytes(), b"\n", path.as_bytes(), b"\n"]);
    Query::parse(&query).signed(false, |part| mac.update(part));
    let signature = hex::encode(mac.finalize().into_bytes());
    format!("{query}&auth_signature={signature}")
}

/// The text that the signature of a request is made of: for those who compare it with what another program signs.
///
/// `path` is as it was signed, `query` as it is sent.
pub fn string_to_sign(method: &str, path: &str, query: &str) -> String {
    let mut text = format!("{method}\n{path}\n").into_bytes();
    Query::parse(query).signed(false, |part| text.extend_from_slice(part));
    String::from_utf8_lossy(&text).into_owned()
}

/// What is not percent-encoded in a query: the characters that URLs have no other use for.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AppSecret;

    const NOW: u64 = 1_700_000_000;

    fn signer() -> Signer {
        Signer::new(&AppSecret::new("secret"))
    }

    fn verify(path: &str, prefix: &str, query: &str, body: &[u8]) -> Result<(), RequestError> {
        let (query, signer) = (Query::parse(query), signer());
        SignedRequest { method: "POST", path, prefix, query: &query, body }
            .verify(NOW, |key| (key == "key").then_some(&signer))
    }

    fn query(path: &str, body: &[u8], now: u64) -> String {
        signed_query(&signer(), "key", "POST", path, &[], body, now)
    }

    #[test]
    fn the_path_may_be_signed_with_or_without_the_prefix() {
        assert_eq!(verify("/ws/apps/1/events", "/ws", &query("/apps/1/events", b"{}", NOW), b"{}"), Ok(()));
        assert_eq!(verify("/ws/apps/1/events", "/ws", &query("/ws/apps/1/events", b"{}", NOW), b"{}"), Ok(()));
        assert!(verify("/ws/apps/1/events", "", &query("/apps/1/events", b"{}", NOW), b"{}").is_err());
    }

    #[test]
    fn each_check_has_its_answer_in_pusher_coms_order() {
        let text = |query: &str| verify("/p", "", query, b"{}").unwrap_err().to_string();
        let good = query("/p", b"{}", NOW);
        assert_eq!(text(""), "Missing parameter: auth_key");
        assert_eq!(text("auth_key=other"), "Unknown auth_key");
        assert_eq!(text("auth_key=key"), "Version required");
        assert_eq!(text("auth_key=key&auth_version=2.0"), "Version not supported");
        assert_eq!(text("auth_key=key&auth_version=1.0"), "Timestamp required");
        assert_eq!(text("auth_key=key&auth_version=1.0&auth_timestamp=x"), "Timestamp required");
        assert_eq!(
            text(&query("/p", b"{}", NOW - 600)),
            "Timestamp expired: Given timestamp (2023-11-14T22:03:20Z) not within 600s of server time (2023-11-14T22:13:20Z)"
        );
        assert_eq!(verify("/p", "", &query("/p", b"{}", NOW - 599), b"{}"), Ok(()));
        assert_eq!(verify("/p", "", &query("/p", b"{}", NOW + 599), b"{}"), Ok(()));
        assert_eq!(text(&good.replace("auth_signature", "x")), "Missing parameter: auth_signature");
        assert_eq!(text(&query("/p", b"", NOW)), "Missing parameter: body_md5 (the request has a body)");
        assert!(text(&query("/p", b"{ }", NOW)).starts_with("Invalid body_md5: the body's MD5 is \"99914b93"));
        let wrong = query("/other", b"{}", NOW);
        assert!(text(&wrong).starts_with(
            "Invalid signature: you should have sent HmacSHA256Hex(\"POST\\n/p\\nauth_key=key&auth_timestamp="
        ));
        assert_eq!(verify("/p", "", &good, b"{}"), Ok(()));
    }

    #[test]
    fn a_signature_is_lower_case_as_on_channels() {
        let good = query("/p", b"{}", NOW);
        let (rest, signature) = good.split_once("auth_signature=").unwrap();
        let shouted = format!("{rest}auth_signature={}", signature.to_uppercase());
        assert!(matches!(verify("/p", "", &shouted, b"{}"), Err(RequestError::Signature { .. })));
    }

    #[test]
    fn the_string_to_sign_is_what_the_signature_is_of() {
        let query = signed_query(&signer(), "key", "GET", "/apps/1/channels", &[("info", "a,b")], b"", NOW);
        let text = string_to_sign("GET", "/apps/1/channels", &query);
        assert_eq!(text, "GET\n/apps/1/channels\nauth_key=key&auth_timestamp=1700000000&auth_version=1.0&info=a,b");
        assert!(query.ends_with(&format!("auth_signature={}", signer().sign(&[text.as_bytes()]))));
    }

    #[test]
    fn a_signed_query_verifies_whatever_its_parameters_are_called() {
        let params = [("Info", "b"), ("info", "a,c"), ("a&b=", "+ %"), ("channels[]", "y"), ("channels[]", "x")];
        let query = signed_query(&signer(), "key", "POST", "/p", &params, b"{}", NOW);
        assert_eq!(verify("/p", "", &query, b"{}"), Ok(()));
        let read = Query::parse(&query);
        assert_eq!((read.get("info").unwrap(), read.get("a&b=").unwrap()), ("a,c".into(), "+ %".into()));
    }

    #[test]
    fn of_equal_keys_the_last_counts_but_arrays_keep_all() {
        let query = Query::parse("b=2&A=1&a=3&channels[]=x&channels[]=y");
        let mut signed = Vec::new();
        query.signed(false, |part| signed.extend_from_slice(part));
        assert_eq!(String::from_utf8(signed).unwrap(), "a=3&b=2&channels[]=x&channels[]=y");
    }
}
