//! A Kamailio that fetches its list from the stand-in for the service, and what its feed says.

use super::feed_server::{FeedServer, Options};
use super::kamailio::{Builder, Kamailio};
use super::wait::{wait_until, SOON};

/// The key that the service knows.
pub const KEY: &str = "sEcRet0123456789";
/// A source that tests list.
pub const LISTED: &str = "127.0.0.66";

/// The service, with an empty list.
pub fn service() -> FeedServer {
    FeedServer::start(Options::new(KEY)).expect("the stand-in for the service")
}

/// Loopback is all that tests have, so it is not trusted; no rate limit that a test would meet; no
/// fetch but the first unless a test asks for it.
pub fn fed(service: &FeedServer) -> Builder {
    keyless(service).param("api_key", KEY)
}

/// [`fed`], with no key: the test says where it comes from.
pub fn keyless(service: &FeedServer) -> Builder {
    Kamailio::builder()
        .param("trust_self", 0)
        .param("api_url", service.url())
        .param("rate_limit_requests", 1000)
        .param("rate_limit_window", 1)
        .param("poll_interval", 80_000)
        .request_route("if (apiban_check()) { exit; }")
}

/// `feed.state` of `apiban.status`.
pub fn state(kamailio: &Kamailio) -> String {
    let status = kamailio.ask("apiban.status", &[]);
    status["feed"]["state"]
        .as_str()
        .expect("a state")
        .to_owned()
}

/// Waits for a `feed.state`.
#[track_caller]
pub fn wait_state(kamailio: &Kamailio, wanted: &str) {
    wait_until(&format!("feed.state {wanted}"), SOON, || {
        state(kamailio) == wanted
    });
}
