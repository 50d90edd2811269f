//! Who is let in, and how often: what the node takes on as a whole, and what one client address may.
//!
//! An app's own limits are the app's. Nothing here is asked for an event or a delivery, only for a connect and for a wrong signature.

mod addresses;
mod memory;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use self::addresses::Addresses;
pub(crate) use self::addresses::Caller;
use crate::{
    app::App,
    bucket::{Exceeded, Rate},
    config::LimitsConfig,
    connection::ConnectionError,
};

/// The limits of the node, and what they are compared with.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: ArcSwap<LimitsConfig>,
    addresses: Addresses,
    /// More memory is in use than may be.
    short_of_memory: AtomicBool,
}

impl Admission {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        Self {
            limits: ArcSwap::from_pointee(limits.clone()),
            addresses: Addresses::default(),
            short_of_memory: AtomicBool::new(false),
        }
    }

    /// From now on these hold.
    pub(crate) fn set(&self, limits: &LimitsConfig) {
        self.limits.store(limits.clone().into());
    }

    /// Whether one more connection may come from an address. It is counted for as long as the [`Caller`] lives, also without a limit, as
    /// there may be one later.
    ///
    /// # Errors What there are too many of.
    pub(crate) fn connect(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<Option<Caller>, ConnectionError> {
        if self.short_of_memory.load(Ordering::Relaxed) {
            return Err(ConnectionError::ShortOfMemory);
        }
        let Some(address) = address else { return Ok(None) };
        let key = address.into();
        let counted = self.addresses.connect(key, &self.limits.load(), now)?;
        Ok(counted.then(|| Caller::new(self, key)))
    }

    /// How many connections the node may have. 0: no limit.
    pub(crate) fn max_connections(&self) -> usize {
        self.limits.load().max_connections
    }

    /// Whether an address may try one more signature, after wrong ones.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn may_sign(&self, address: Option<IpAddr>, now: Instant) -> Result<(), Exceeded> {
        match (address, self.failures()) {
            (Some(address), Some(rate)) => self.addresses.may_sign(address.into(), rate, now),
            _ => Ok(()),
        }
    }

    /// A signature from this address was wrong.
    pub(crate) fn bad_signature(&self, address: Option<IpAddr>, now: Instant) {
        if let (Some(address), Some(rate)) = (address, self.failures()) {
            self.addresses.bad_signature(address.into(), rate, now);
        }
    }

    /// How many wrong signatures an address may send.
    fn failures(&self) -> Option<Rate> {
        let limit = self.limits.load().max_failed_signatures_per_minute_per_address;
        (limit > 0).then_some(Rate { limit, per: Duration::from_secs(60) })
    }

    /// Looks at the memory in use, and forgets addresses that have been quiet. To be called about once a second.
    pub(crate) fn tick(&self, now: Instant) {
        self.addresses.sweep(now);
        let limit = self.limits.load().max_memory;
        let was_short = self.short_of_memory.load(Ordering::Relaxed);
        let Some((used, most)) = memory::used_and_most(limit) else {
            if was_short {
                self.short_of_memory.store(false, Ordering::Relaxed);
                tracing::info!("new connections are accepted again: there is no limit of memory");
            }
            return;
        };
        // Memory has to fall 5 % below the limit before connections are let in again, or this would flap.
        let short = used > if was_short { most - most / 20 } else { most };
        if short == was_short {
            return;
        }
        self.short_of_memory.store(short, Ordering::Relaxed);
        let (used_mb, limit_mb) = (used >> 20, most >> 20);
        if short {
            tracing::warn!(
                used_mb,
                limit_mb,
                "short of memory (limits.max_memory): new connections are refused with 4100"
            );
        } else {
            tracing::info!(used_mb, limit_mb, "enough memory: new connections are accepted again");
        }
    }
}

/// A client who was let in, counted for its app and its address.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) app: Arc<App>,
    pub(crate) caller: Option<Caller>,
    /// It speaks TLS, with us or with a trusted proxy.
    pub(crate) secure: bool,
}
