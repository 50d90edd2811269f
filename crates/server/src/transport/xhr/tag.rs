//! What tells a request from the same one, sent again.

/// The mark that pusher-js gives each request: when it was made, and the how manyth it was.
///
/// Browsers send a request again by themselves, a POST as well, when a connection that they have used before breaks before the head of
/// the answer is there. The page does not hear of it, so whatever the first answer had would be missing from its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestTag {
    time: u64,
    number: u64,
}

impl RequestTag {
    /// The mark in a query; `None` if it has none: such requests cannot be told apart.
    pub(super) fn of(query: Option<&str>) -> Option<Self> {
        let value = |name: &str| {
            let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name)?.1.parse().ok()
        };
        Some(Self { time: value("t")?, number: value("n")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_by_both_of_its_numbers() {
        let tag = RequestTag::of(Some("protocol=7&client=js&version=8.6.0&t=1795627438925&n=4"));
        assert_eq!(tag, Some(RequestTag { time: 1_795_627_438_925, number: 4 }));
        for other in [None, Some(""), Some("t=1795627438925"), Some("n=4"), Some("t=x&n=4"), Some("t&n")] {
            assert_eq!(RequestTag::of(other), None, "{other:?}");
        }
    }
}
