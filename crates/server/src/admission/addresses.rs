//! What client addresses have done lately. Bounded: quiet ones are forgotten, and beyond the bound new ones are not counted.

use std::{net::IpAddr, sync::Arc};

use dashmap::DashMap;
use tokio::time::Instant;

use super::Admission;
use crate::{
    bucket::{Bucket, Exceeded, Rate},
    config::LimitsConfig,
    connection::ConnectionError,
    limits::ADDRESSES,
};

/// Addresses with connections or a recent past.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    entries: DashMap<Key, Entry>,
}

/// One client, as far as an address tells. A subscriber of IPv6 has a whole /64 to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    V4(u32),
    V6(u64),
}

#[derive(Debug, Default)]
struct Entry {
    connections: u32,
    connects: Bucket,
    failures: Bucket,
}

/// A client whose address is counted. Counted out when it is dropped.
#[derive(Debug)]
pub(crate) struct Caller {
    admission: Arc<Admission>,
    key: Key,
}

impl Caller {
    pub(super) fn new(admission: &Arc<Admission>, key: Key) -> Self {
        Self { admission: Arc::clone(admission), key }
    }

    /// Whether its address may try one more signature, after wrong ones.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn may_sign(&self) -> Result<(), Exceeded> {
        match self.admission.failures() {
            Some(rate) => self.admission.addresses.may_sign(self.key, rate, Instant::now()),
            None => Ok(()),
        }
    }

    /// One of its signatures was wrong.
    pub(crate) fn bad_signature(&self) {
        if let Some(rate) = self.admission.failures() {
            self.admission.addresses.bad_signature(self.key, rate, Instant::now());
        }
    }
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.into()),
            IpAddr::V6(address) => Self::V6((u128::from(address) >> 64) as u64),
        }
    }
}

impl Addresses {
    /// Counts a connection in, if there is a place for its address.
    pub(super) fn connect(&self, key: Key, limits: &LimitsConfig, now: Instant) -> Result<bool, ConnectionError> {
        if self.is_full_for(key) {
            return Ok(false);
        }
        let mut entry = self.entries.entry(key).or_default();
        let (limit, rate) = (limits.max_connections_per_address, limits.max_connects_per_second_per_address);
        if limit != 0 && entry.connections >= limit {
            return Err(ConnectionError::AddressFull { limit });
        }
        if rate != 0 && entry.connects.take(Rate::per_second(rate), 1, now).is_err() {
            return Err(ConnectionError::AddressTooFast { limit: rate });
        }
        entry.connections += 1;
        Ok(true)
    }

    fn disconnect(&self, key: Key) {
        if let Some(mut entry) = self.entries.get_mut(&key) {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }

    pub(super) fn may_sign(&self, key: Key, rate: Rate, now: Instant) -> Result<(), Exceeded> {
        self.entries.get(&key).map_or(Ok(()), |entry| entry.failures.check(rate, 1, now))
    }

    pub(super) fn bad_signature(&self, key: Key, rate: Rate, now: Instant) {
        if !self.is_full_for(key) {
            // An address that is over its limit gets an error here, and does not have to wait longer for it.
            let _ = self.entries.entry(key).or_default().failures.take(rate, 1, now);
        }
    }

    /// Whether there is no place for one more address.
    fn is_full_for(&self, key: Key) -> bool {
        self.entries.len() >= ADDRESSES && !self.entries.contains_key(&key)
    }

    /// Forgets addresses without connections that have been quiet for long enough.
    pub(super) fn sweep(&self, now: Instant) {
        if !self.entries.is_empty() {
            self.entries.retain(|_, entry| {
                entry.connections > 0 || !entry.connects.is_full(now) || !entry.failures.is_full(now)
            });
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.admission.addresses.disconnect(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(text: &str) -> Key {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn connections_are_counted_in_and_out() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        let limits = LimitsConfig { max_connections_per_address: 2, ..LimitsConfig::default() };
        let connect = |text: &str| addresses.connect(key(text), &limits, now);
        assert_eq!((connect("192.0.2.1"), connect("::ffff:192.0.2.1")), (Ok(true), Ok(true)));
        assert_eq!(connect("192.0.2.1"), Err(ConnectionError::AddressFull { limit: 2 }));
        assert_eq!(connect("192.0.2.2"), Ok(true));
        addresses.disconnect(key("192.0.2.1"));
        assert_eq!(connect("192.0.2.1"), Ok(true));
        assert!(connect("192.0.2.1").is_err());
        for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
            addresses.disconnect(key(address));
        }
        addresses.sweep(now);
        assert!(addresses.entries.is_empty());
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    }

    #[test]
    fn an_address_is_remembered_until_its_buckets_are_full_again() {
        let (addresses, now) = (Addresses::default(), Instant::now() + Duration::from_secs(1));
        let limits = LimitsConfig { max_connects_per_second_per_address: 1, ..LimitsConfig::default() };
        assert_eq!(addresses.connect(key("192.0.2.1"), &limits, now), Ok(true));
        addresses.disconnect(key("192.0.2.1"));
        addresses.sweep(now);
        let again = addresses.connect(key("192.0.2.1"), &limits, now);
        assert_eq!(again, Err(ConnectionError::AddressTooFast { limit: 1 }));
        addresses.sweep(now + Duration::from_secs(2));
        assert!(addresses.entries.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_lets_pass_whom_it_has_no_place_for() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        let rate = Rate { limit: 1, per: Duration::from_secs(60) };
        for number in 0..u32::try_from(ADDRESSES).unwrap() + 10 {
            addresses.bad_signature(Key::V4(number), rate, now);
        }
        assert_eq!(addresses.entries.len(), ADDRESSES);
        assert!(addresses.may_sign(key("0.0.0.1"), rate, now).is_err());
        assert!(addresses.may_sign(key("255.0.0.1"), rate, now).is_ok());
        let limits = LimitsConfig { max_connections_per_address: 1, ..LimitsConfig::default() };
        assert_eq!(addresses.connect(key("255.0.0.1"), &limits, now), Ok(false));
    }
}
