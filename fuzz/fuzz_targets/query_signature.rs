//! A request to the HTTP API: four lines of path, prefix, query and body. None is signed, so none may verify; the same
//! path and body verify when they are signed.

#![no_main]

use fanfare_protocol::{
    AppSecret, Signer,
    request::{Query, SignedRequest, signed_query},
};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_700_000_000;

fn verify(path: &str, prefix: &str, query: &str, body: &[u8], signer: &Signer) -> bool {
    let query = Query::parse(query);
    let request = SignedRequest { method: "POST", path, prefix, query: &query, body };
    request.verify(NOW, |key| (key == "key").then_some(signer)).map_err(|error| error.to_string()).is_ok()
}

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (path, prefix, query, body) = (line(), line(), line(), line().as_bytes());
    let signer = Signer::new(&AppSecret::new("secret"));

    assert!(!verify(path, prefix, query, body, &signer), "an unsigned request was let in");

    let params = query.split('&').filter_map(|pair| pair.split_once('='));
    // The body's digest is not the caller's to choose.
    let params: Vec<_> = params.filter(|(key, _)| !key.eq_ignore_ascii_case("body_md5")).collect();
    let signed = signed_query(&signer, "key", "POST", path, &params, body, NOW);
    assert!(verify(path, prefix, &signed, body, &signer), "a signed request was refused");
});
