//! Why something that a client or a backend asked for is refused.

use super::Counter;

/// Makes the causes, their labels and the list of all in one place.
macro_rules! causes {
    ($($(#[$doc:meta])+ $cause:ident = $name:literal,)+) => {
        /// Why something is refused: a fixed set, as each is a series of every app.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Refusal {
            $($(#[$doc])+ $cause,)+
        }

        impl Refusal {
            /// All there are, in the order of their numbers.
            pub(super) const ALL: &[Self] = &[$(Self::$cause,)+];

            /// The value of the label `cause`.
            pub(super) fn label(self) -> &'static str {
                match self {
                    $(Self::$cause => $name,)+
                }
            }
        }
    };
}

causes! {
    /// No app has this key or id.
    AppUnknown = "app_unknown",
    /// The app is disabled.
    AppDisabled = "app_disabled",
    /// The app takes nothing without TLS (`require_tls`).
    NoTls = "no_tls",
    /// The server is about to stop.
    Draining = "draining",
    /// A WebSocket's path is none of an app.
    Path = "path",
    /// A client speaks a version of the protocol that the server does not.
    ProtocolVersion = "protocol_version",
    /// The page's origin may not connect.
    Origin = "origin",
    /// The signature of a request, subscription or sign-in is not the app's.
    Signature = "signature",
    /// The app has as many connections as it may (`max_connections`).
    Connections = "connections",
    /// A client's message cannot be read, or makes no sense.
    Message = "message",
    /// A subscription would be one too many for the connection, or its member for the channel.
    SubscriptionLimit = "subscription_limit",
    /// The app, or the client's address, has as many sessions over HTTP as it may (`max_xhr_sessions`,
    /// `xhr.max_sessions_per_address`).
    Sessions = "sessions",
    /// The app has as many channels as it may (`max_channels`).
    Channels = "channels",
    /// A subscription has a name or data that cannot be, or is there already.
    Subscription = "subscription",
    /// One connection sends too many events (`max_client_events_per_second`).
    ClientEvents = "client_events",
    /// All connections of the app send too many events (`max_total_client_events_per_second`).
    TotalClientEvents = "total_client_events",
    /// The app's backends publish too many events (`max_backend_events_per_second`).
    BackendEvents = "backend_events",
    /// The app's backends read too often (`max_reads_per_second`).
    Reads = "reads",
    /// The database cannot be asked for the app.
    AppsUnavailable = "apps_unavailable",
    /// The node has as many connections as it may (`limits.max_connections`).
    NodeConnections = "node_connections",
    /// More memory is in use than may be (`limits.max_memory`).
    Memory = "memory",
    /// The address has as many connections as it may (`limits.max_connections_per_address`).
    AddressConnections = "address_connections",
    /// The address connects too often (`limits.max_connects_per_second_per_address`).
    AddressConnects = "address_connects",
    /// Too many signatures of the address did not fit (`limits.max_failed_signatures_per_minute_per_address`).
    AddressSignatures = "address_signatures",
    /// A client event is not allowed for any other reason.
    ClientEvent = "client_event",
    /// A request, or an event in it, is too large.
    RequestSize = "request_size",
    /// A request took too long to come.
    RequestTimeout = "request_timeout",
    /// A request cannot be understood, or asks for what cannot be.
    Request = "request",
    /// The workers had no room for a trigger.
    Busy = "busy",
    /// Too much waits for Redis, or it does not answer.
    Broker = "broker",
}

/// How often something was refused, by cause.
#[derive(Debug, Default)]
pub(crate) struct Refusals([Counter; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub(crate) fn count(&self, cause: Refusal) {
        self.0[cause as usize].increment();
    }

    /// How often so far.
    pub(crate) fn get(&self, cause: Refusal) -> u64 {
        self.0[cause as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_counter_and_label() {
        let refusals = Refusals::default();
        for cause in Refusal::ALL {
            refusals.count(*cause);
            assert!(Refusal::ALL.iter().filter(|other| other.label() == cause.label()).eq([cause]));
        }
        assert!(Refusal::ALL.iter().all(|cause| refusals.get(*cause) == 1));
    }

    #[test]
    fn the_operating_guide_says_what_each_cause_means() {
        let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md")).unwrap();
        let (_, causes) = guide.split_once("| Cause | What was refused |").unwrap();
        let (table, _) = causes.split_once("\n\n").unwrap();
        for cause in Refusal::ALL {
            assert!(table.contains(&format!("`{}`", cause.label())), "docs/operating.md lacks {}", cause.label());
        }
    }
}
