//! Laravel's names: two broadcasters may describe an app, and where clients reach it; and the parts of a Redis's address.

use std::net::Ipv6Addr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    alias::{Given, Parts},
    origin::Origin,
};

/// Whose names describe the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broadcaster {
    Pusher,
    Reverb,
}

/// Both broadcasters, first the one that the application uses. Without a word about that it is `pusher`.
pub(super) fn order(parts: &Parts) -> [Broadcaster; 2] {
    let used = ["BROADCAST_CONNECTION", "BROADCAST_DRIVER"].iter().find_map(|name| parts.get(*name));
    match used.map(|given| given.text.as_str()) {
        Some("reverb") => [Broadcaster::Reverb, Broadcaster::Pusher],
        _ => [Broadcaster::Pusher, Broadcaster::Reverb],
    }
}

impl Broadcaster {
    /// What the names of its app's settings begin with.
    pub(super) fn app_prefix(self) -> &'static str {
        match self {
            Self::Pusher => "PUSHER_APP_",
            Self::Reverb => "REVERB_APP_",
        }
    }

    fn credentials(self) -> [&'static str; 3] {
        match self {
            Self::Pusher => ["PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"],
            Self::Reverb => ["REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET"],
        }
    }

    /// Whether id, key and secret of an app are there.
    pub(super) fn is_complete(self, parts: &Parts) -> bool {
        self.credentials().iter().all(|name| parts.contains_key(name))
    }

    /// What to say if some of them are.
    pub(super) fn what_is_missing(self, parts: &Parts) -> Option<String> {
        let (set, missing): (Vec<_>, Vec<_>) =
            self.credentials().into_iter().partition(|name| parts.contains_key(name));
        let origin = &parts.get(set.first()?)?.origin;
        Some(format!("{origin}: names no app without {}", missing.join(" and ")))
    }

    /// What to say of an app that was taken.
    pub(super) fn note(self, taken: &[Origin], parts: &Parts) -> String {
        let mut places: Vec<String> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for origin in taken {
            let place = match origin {
                Origin::EnvFile { file, .. } => file.clone(),
                _ => "the environment".to_owned(),
            };
            if !places.contains(&place) {
                places.push(place);
            }
            names.push(origin.name());
        }
        let other = if self == Self::Pusher { Self::Reverb } else { Self::Pusher };
        let aside = if other.is_complete(parts) {
            let [id, key, secret] = other.credentials();
            format!("; {id}, {key} and {secret} are left aside (BROADCAST_CONNECTION says which to take)")
        } else {
            String::new()
        };
        format!("the app is taken from {}: {}{aside}", places.join(" and "), names.join(", "))
    }

    /// Where clients reach the server, if it is said. Laravel's defaults are `https` and 443.
    pub(super) fn public_url(self, parts: &Parts) -> Option<(String, Origin)> {
        let [host, port, scheme] = match self {
            Self::Pusher => ["PUSHER_HOST", "PUSHER_PORT", "PUSHER_SCHEME"],
            Self::Reverb => ["REVERB_HOST", "REVERB_PORT", "REVERB_SCHEME"],
        };
        let Given { text: host, origin } = parts.get(host)?;
        let text = |name: &'static str, default| parts.get(name).map_or(default, |given| given.text.as_str());
        let url = format!("{}://{host}:{}", text(scheme, "https"), text(port, "443"));
        // It is only for the lines to paste, so a URL that makes no sense is left out without an error.
        let url = reqwest::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let plain = url.path() == "/" && url.username().is_empty() && url.password().is_none() && url.query().is_none();
        plain.then(|| (url.as_str().trim_end_matches('/').to_owned(), origin.clone()))
    }
}

/// The address of the Redis whose parts have names that begin so, if there are any, and where the first one comes from.
pub(super) fn redis_url(prefix: &str, parts: &Parts) -> Option<(String, Origin)> {
    let part = |name: &str| {
        let mut known = parts.iter().filter(|(known, _)| known.strip_prefix(prefix) == Some(name));
        // Laravel writes null for what is not set.
        known.next().map(|(_, given)| given).filter(|given| given.text != "null")
    };
    let [host, port, username, password, db] = ["HOST", "PORT", "USERNAME", "PASSWORD", "DB"].map(part);
    let first = [host, port, username, password, db].into_iter().flatten().next()?;
    let text =
        |part: Option<&Given>, default: &str| part.map_or_else(|| default.to_owned(), |given| given.text.clone());
    let encoded = |part| utf8_percent_encode(&text(part, ""), NON_ALPHANUMERIC).to_string();
    let credentials = match (username, password) {
        (None, None) => String::new(),
        _ => format!("{}:{}@", encoded(username), encoded(password)),
    };
    let (mut host, port, db) = (text(host, "127.0.0.1"), text(port, "6379"), text(db, "0"));
    if host.parse::<Ipv6Addr>().is_ok() {
        host = format!("[{host}]");
    }
    Some((format!("redis://{credentials}{host}:{port}/{db}"), first.origin.clone()))
}
