//! Paths. Segments are percent-decoded after splitting, so that no `;`, `,` or `%2F` of a name splits a path.

use std::borrow::Cow;

use actix_web::http::Method;
use percent_encoding::percent_decode_str;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/`: people check a server with curl.
    Index,
    /// `/up`, `/ready`, `/accept-traffic`
    Health,
    /// `/metrics`
    Metrics,
    /// `/recover.js`, or as a module `/recover.mjs`.
    Companion { module: bool },
    /// `/app/{key}` without an upgrade.
    WebSocket,
    /// The signed API.
    Api {
        /// Absent in the Python SDK's `/users/{id}/terminate_connections`, which tells the app by its key alone.
        app_id: Option<Cow<'a, str>>,
        api: Api<'a>,
    },
}

/// The signed API.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Api<'a> {
    Events,
    BatchEvents,
    Channels,
    Channel {
        channel: Cow<'a, str>,
    },
    ChannelUsers {
        channel: Cow<'a, str>,
    },
    TerminateConnections {
        user_id: Cow<'a, str>,
    },
    /// Reverb's own addition, which Laravel Pulse asks.
    Connections,
}

impl Api<'_> {
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Events | Self::BatchEvents | Self::TerminateConnections { .. } => Method::POST,
            Self::Channels | Self::Channel { .. } | Self::ChannelUsers { .. } | Self::Connections => Method::GET,
        }
    }
}

/// Finds the route of a path below the prefix.
pub(super) fn find<'a>(path: &'a str, prefix: &str) -> Option<Route<'a>> {
    let path = path.strip_prefix(prefix)?;
    let segments = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() || segments.is_empty() {
        return Some(Route::Index);
    }
    if segments.len() == path.len() {
        return None;
    }
    let decode = |segment: &'a str| percent_decode_str(segment).decode_utf8_lossy();
    let mut parts = [""; 6];
    let mut count = 0;
    for part in segments.split('/') {
        *parts.get_mut(count)? = part;
        count += 1;
    }
    let api = |app_id: &'a str, api| Some(Route::Api { app_id: Some(decode(app_id)), api });
    match parts[..count] {
        // Soketi's names, for probes that ask for them.
        ["up" | "ready" | "accept-traffic"] => Some(Route::Health),
        ["metrics"] => Some(Route::Metrics),
        ["recover.js"] => Some(Route::Companion { module: false }),
        ["recover.mjs"] => Some(Route::Companion { module: true }),
        ["app", ..] => Some(Route::WebSocket),
        ["apps", id, "events"] => api(id, Api::Events),
        ["apps", id, "batch_events"] => api(id, Api::BatchEvents),
        ["apps", id, "channels"] => api(id, Api::Channels),
        ["apps", id, "channels", channel] => api(id, Api::Channel { channel: decode(channel) }),
        ["apps", id, "channels", channel, "users"] => api(id, Api::ChannelUsers { channel: decode(channel) }),
        ["apps", id, "users", user, "terminate_connections"] => {
            api(id, Api::TerminateConnections { user_id: decode(user) })
        }
        ["apps", id, "connections"] => api(id, Api::Connections),
        ["users", user, "terminate_connections"] => {
            Some(Route::Api { app_id: None, api: Api::TerminateConnections { user_id: decode(user) } })
        }
        _ => None,
    }
}

/// Where pusher-js looks for its HTTP transports unless it is told otherwise.
pub(crate) const XHR_SCOPE: &str = "/pusher/app";

/// A request of a session over HTTP: `/app/{key}/{server}/{session}/...`, both names being the client's choice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Xhr<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) server: &'a str,
    pub(super) session: &'a str,
    pub(super) call: XhrCall,
}

/// What such a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XhrCall {
    /// `xhr_streaming`
    Stream,
    /// `xhr`
    Poll,
    /// `xhr_send`
    Send,
}

/// Finds a request of a session, below the prefix or where pusher-js looks by itself.
pub(super) fn find_xhr<'a>(path: &'a str, prefix: &str) -> Option<Xhr<'a>> {
    let (path, call) = path.rsplit_once('/')?;
    let call = match call {
        "xhr_streaming" => XhrCall::Stream,
        "xhr" => XhrCall::Poll,
        "xhr_send" => XhrCall::Send,
        _ => return None,
    };
    let below_prefix = path.strip_prefix(prefix).and_then(|path| path.strip_prefix("/app"));
    let mut segments = below_prefix.or_else(|| path.strip_prefix(XHR_SCOPE))?.strip_prefix('/')?.split('/');
    let (key, server, session) = (segments.next()?, segments.next()?, segments.next()?);
    let key = percent_decode_str(key).decode_utf8_lossy();
    segments.next().is_none().then_some(Xhr { key, server, session, call })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_found_below_the_prefix_and_where_pusher_js_looks() {
        let found = |path| find_xhr(path, "/ws").map(|xhr| (xhr.key.into_owned(), xhr.server, xhr.session, xhr.call));
        let expected = |call| Some(("till-key".to_owned(), "7", "0123abcd", call));
        assert_eq!(found("/pusher/app/till-key/7/0123abcd/xhr_streaming"), expected(XhrCall::Stream));
        assert_eq!(found("/ws/app/till-key/7/0123abcd/xhr"), expected(XhrCall::Poll));
        assert_eq!(found("/ws/app/till%2Dkey/7/0123abcd/xhr_send"), expected(XhrCall::Send));
        for path in [
            "/app/till-key/7/0123abcd/xhr",
            "/ws/apps/1/channels/xhr",
            "/ws/app/till-key/xhr",
            "/ws/app/till-key/7/0123abcd/more/xhr",
            "/ws/app/till-key/7/0123abcd/xhr/",
            "/pusher/apps/till-key/7/0123abcd/xhr",
            "/pusher/app/till-key/7/0123abcd/jsonp",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn names_are_decoded_and_split_nothing() {
        let channel = |path| match find(path, "") {
            Some(Route::Api { app_id: Some(id), api: Api::Channel { channel } }) => format!("{id} {channel}"),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(channel("/apps/1/channels/presence-a_B=@,.;9"), "1 presence-a_B=@,.;9");
        assert_eq!(channel("/apps/1/channels/%23server-to-user-a%2Fb"), "1 #server-to-user-a/b");
        assert_eq!(
            find("/users/u%201%C3%A9/terminate_connections", ""),
            Some(Route::Api { app_id: None, api: Api::TerminateConnections { user_id: "u 1é".into() } })
        );
    }

    #[test]
    fn all_routes_move_under_the_prefix() {
        assert_eq!(find("/ws/up", "/ws"), Some(Route::Health));
        assert_eq!(find("/ws", "/ws"), Some(Route::Index));
        assert_eq!(find("/ws/", "/ws"), Some(Route::Index));
        assert_eq!(find("/up", "/ws"), None);
        assert_eq!(find("/wsup", "/ws"), None);
        assert_eq!(find("/", ""), Some(Route::Index));
    }

    #[test]
    fn anything_else_is_not_found() {
        for path in
            ["/apps", "/apps/1", "/apps/1/events/", "/apps/1/events/x", "/x", "/apps/1/users/u", "/a/b/c/d/e/f/g/h"]
        {
            assert_eq!(find(path, ""), None, "{path}");
        }
    }
}
