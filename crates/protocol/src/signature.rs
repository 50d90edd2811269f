//! HMAC-SHA256 signatures with an app's secret: channels, sign-in and webhooks. All comparisons take constant time.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{AppSecret, SocketId};

/// Signs and verifies with one secret. The key is prepared once; cloning the prepared state is cheaper than keying anew.
#[derive(Clone)]
pub struct Signer {
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer([redacted])")
    }
}

impl Signer {
    /// Prepares the key.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub fn new(secret: &AppSecret) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let keyed = Hmac::new_from_slice(secret.expose().as_bytes()).expect("any length is allowed");
        Self { keyed }
    }

    /// The signature of the concatenated parts: 64 lower-case hex digits.
    pub fn sign(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.update(parts).finalize().into_bytes())
    }

    /// Whether `signature`, in hex, is that of the concatenated parts.
    pub fn verify(&self, parts: &[&[u8]], signature: &str) -> bool {
        digest(signature).is_some_and(|digest| self.update(parts).verify_slice(&digest).is_ok())
    }

    pub(crate) fn update(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

/// The digest that a signature of 64 lower-case hex digits stands for. SDKs write lower case, and so do the documents.
pub(crate) fn digest(signature: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let lower = !signature.bytes().any(|byte| byte.is_ascii_uppercase());
    (lower && hex::decode_to_slice(signature, &mut digest).is_ok()).then_some(digest)
}

/// Why an `auth` string of a subscription or sign-in is refused. The texts are pusher.com's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The part before the colon is not a key of the app.
    #[error("Invalid key in subscription auth data: '{0}'")]
    Key(String),
    /// The part behind the colon is not the signature.
    #[error("Invalid signature: Expected HMAC SHA256 hex digest of {string_to_sign}, but got {signature}")]
    Signature {
        /// What should have been signed.
        string_to_sign: String,
        /// What came instead.
        signature: String,
    },
}

/// Verifies the `auth` of a subscription to a channel that needs it.
///
/// Signed is `{socket_id}:{channel}`, with `:{channel_data}` behind it if there is any, byte for byte as received.
/// `signer` finds the prepared secret of an active key. Source: Channels documentation, "Generating the authentication string".
///
/// # Errors
/// [`AuthError`], with the text for the client.
pub fn verify_channel<'s>(
    auth: &str,
    socket_id: SocketId,
    channel: &str,
    channel_data: Option<&str>,
    signer: impl FnOnce(&str) -> Option<&'s Signer>,
) -> Result<(), AuthError> {
    verify(auth, channel_string(&socket_id.to_string(), channel, channel_data), signer)
}

/// Verifies the `auth` of a sign-in: signed is `{socket_id}::user::{user_data}`.
///
/// # Errors
/// [`AuthError`], with the text for the client.
pub fn verify_user<'s>(
    auth: &str,
    socket_id: SocketId,
    user_data: &str,
    signer: impl FnOnce(&str) -> Option<&'s Signer>,
) -> Result<(), AuthError> {
    verify(auth, user_string(&socket_id.to_string(), user_data), signer)
}

/// What an app signs for a channel.
pub fn channel_string(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    match channel_data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

/// What an app signs for a sign-in.
pub fn user_string(socket_id: &str, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

fn verify<'s>(
    auth: &str,
    string_to_sign: String,
    signer: impl FnOnce(&str) -> Option<&'s Signer>,
) -> Result<(), AuthError> {
    let (key, signature) = auth.split_once(':').unwrap_or((auth, ""));
    let signer = signer(key).ok_or_else(|| AuthError::Key(key.to_owned()))?;
    if signer.verify(&[string_to_sign.as_bytes()], signature) {
        Ok(())
    } else {
        Err(AuthError::Signature { string_to_sign, signature: signature.to_owned() })
    }
}
