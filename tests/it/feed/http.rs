//! The feed over real HTTP: the engine and the client against a stand-in for the service.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

use apiban::address::Subnet;
use apiban::clock::{UnixMillis, UnixSeconds};
use apiban::feed::client::{
    spawn, Fetch, FetchError, FetchErrorKind, HttpClient, HttpSettings, Request, Response,
};
use apiban::feed::parse::{parse, Answer};
use apiban::feed::schedule::Jitter;
use apiban::feed::{
    ApiVersion, ControlId, Dataset, Effect, Engine, FeedSettings, FeedState, Key, Source, Step,
};
use apiban_testing::feed_server::{now, Fault, FeedServer, Options, Window};
use apiban_testing::rerun::{alone, passes};

/// Needs encoding in a URL, so that both spellings are looked for.
const KEY: &str = "S3cr+t/Key";
const KEY_IN_URL: &str = "S3cr%2Bt%2FKey";

fn server() -> FeedServer {
    FeedServer::start(Options::new(KEY)).unwrap()
}

fn source(server: &FeedServer, version: ApiVersion) -> Source {
    Source::new(&server.url(), version, Dataset::Sip).unwrap()
}

fn client(server: &FeedServer, version: ApiVersion, timeout: u64) -> HttpClient {
    HttpClient::new(HttpSettings {
        product: "apiban.so/test".to_owned(),
        source: source(server, version),
        timeout,
        ca_file: None,
    })
}

fn ask(client: &mut HttpClient, after: Option<&str>) -> Result<Response, FetchError> {
    let key = Key::new(KEY).unwrap();
    let after = after.map(|id| ControlId::new(id).unwrap());
    let result = client.fetch(&Request {
        key,
        after,
        allowed: 11,
    });
    if let Err(error) = &result {
        assert_no_key(&format!("{error} {error:?}"));
        assert!(error.to_string().len() < 300, "{error}");
    }
    result
}

fn ask_parsed(client: &mut HttpClient) -> Answer {
    let response = ask(client, None).unwrap();
    parse(response.status, response.retry_after, &response.body)
}

fn assert_no_key(text: &str) {
    assert!(!text.contains(KEY) && !text.contains(KEY_IN_URL), "{text}");
}

fn addresses(n: u32) -> Vec<String> {
    let ip = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
    (0..n).map(ip).collect()
}

/// The engine with a clock that jumps over every pause, and the table it fills.
struct Feed {
    engine: Engine,
    client: HttpClient,
    now: UnixMillis,
    table: HashMap<Subnet, UnixSeconds>,
    logs: Vec<String>,
    full_done: usize,
}

impl Feed {
    fn new(server: &FeedServer, version: ApiVersion) -> Self {
        let config = FeedSettings {
            source: source(server, version),
            poll_interval: Duration::from_secs(300),
            resync_interval: Duration::from_secs(86_400),
            feed_ttl: Duration::from_secs(604_800),
            rate_limit_requests: 11,
            rate_limit_window: Duration::from_secs(120),
            feed_shrink_limit: 50,
        };
        let now = UnixSeconds::saturating(now()).millis();
        let key = Key::new(KEY).ok();
        Feed {
            engine: Engine::with_jitter(config, key, None, now, Jitter::seeded(1)),
            client: client(server, version, 2),
            now,
            table: HashMap::new(),
            logs: Vec::new(),
            full_done: 0,
        }
    }

    fn one_request(&mut self) {
        loop {
            match self.engine.next(self.now) {
                Step::Wait(until) => self.now = until,
                Step::Fetch(request) => {
                    assert_no_key(&format!("{request:?}"));
                    let result = self.client.fetch(&request);
                    assert_no_key(&format!("{:?}", result.as_ref().err()));
                    let known: Vec<Subnet> = self.table.keys().copied().collect();
                    self.engine.on_result(self.now, result, &|| known.clone());
                    self.carry_out();
                    let status = self.engine.status(self.now);
                    assert_no_key(&format!("{status:?} {:?}", self.engine));
                    assert!(status.last_error.chars().count() <= 250);
                    return;
                }
                step => panic!("{step:?}"),
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Apply(listed) => {
                    self.table.extend(listed.iter().map(|l| (l.subnet, l.end)));
                }
                Effect::Sweep(keep) => self.table.retain(|subnet, _| keep.contains(subnet)),
                Effect::FullDone { .. } => self.full_done += 1,
                Effect::Log(_, text) => self.logs.push(text),
                Effect::SaveSoon => {}
            }
        }
    }

    fn fill(&mut self) {
        for _ in 0..50 {
            if self.full_done > 0 {
                return;
            }
            self.one_request();
        }
        panic!("no end after 50 requests: {:?}", self.logs);
    }

    fn state(&self) -> FeedState {
        self.engine.status(self.now).state
    }
}

#[test]
fn both_versions_walk_the_whole_list() {
    for version in [ApiVersion::V1, ApiVersion::V2] {
        let server = server();
        server.list(&addresses(600));
        server.list_at("http", 0, &["203.0.113.1"]);
        let mut feed = Feed::new(&server, version);
        feed.fill();
        assert_eq!(feed.table.len(), 600);
        let log = server.requests();
        assert_eq!(log.len(), 3);
        assert!(log.iter().all(|r| r.status == 200));
        assert!(log.iter().all(|r| {
            let agent = r.request.header("user-agent").unwrap();
            agent == "apiban.so/test"
        }));
        let first = &log[0].request;
        match version {
            ApiVersion::V1 => {
                assert_eq!(first.path, format!("/api/{KEY_IN_URL}/banned"));
                assert_eq!(first.header("authorization"), None);
            }
            ApiVersion::V2 => {
                assert_eq!(
                    (first.method.as_str(), first.path.as_str()),
                    ("POST", "/api/get")
                );
                assert_eq!(first.body, r#"{"set":"sip","id":"100"}"#);
                assert!(log.iter().all(|r| !r.request.path.contains("S3cr")));
            }
        }
        // What comes later is asked for from where the list ended.
        server.list(&["203.0.113.7"]);
        feed.one_request();
        assert_eq!(feed.table.len(), 601);
        feed.one_request();
        assert_eq!(server.requests().last().unwrap().status, 400);
        assert_eq!(feed.state(), FeedState::Ok);
    }
}

#[test]
fn every_dataset_is_asked_for_by_name() {
    let server = server();
    server.list(&["192.0.2.1"]);
    server.list_at("http", 0, &["192.0.2.2"]);
    for (dataset, listed) in [(Dataset::Sip, 1), (Dataset::Http, 1), (Dataset::All, 2)] {
        let source = Source::new(&server.url(), ApiVersion::V2, dataset).unwrap();
        let settings = HttpSettings {
            product: "apiban.so/test".to_owned(),
            source,
            timeout: 5,
            ca_file: None,
        };
        match ask_parsed(&mut HttpClient::new(settings)) {
            Answer::Page(page) => assert_eq!(page.addresses.len(), listed),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_wrong_key_stops_the_asking_in_both_versions() {
    for version in [ApiVersion::V1, ApiVersion::V2] {
        let server = FeedServer::start(Options::new("another")).unwrap();
        let mut feed = Feed::new(&server, version);
        feed.one_request();
        assert_eq!(feed.state(), FeedState::Unauthorized);
        assert!(matches!(
            feed.engine.next(feed.now + Duration::from_secs(3_000)),
            Step::Wait(_)
        ));
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn every_fault_is_survived_and_recovered_from() {
    use FeedState::{Ok, RateLimited, Unauthorized};
    let faults = [
        (Fault::RateLimited(None), Some(RateLimited)),
        (Fault::RateLimited(Some(30)), Some(RateLimited)),
        (Fault::RateLimitedDate(30), Some(RateLimited)),
        (Fault::RateLimited403, Some(RateLimited)),
        (Fault::Unauthorized(403), Some(Unauthorized)),
        (Fault::Unauthorized(401), Some(Unauthorized)),
        (Fault::Status(500, None), None),
        (Fault::Status(503, Some(7)), None),
        (Fault::Status(404, None), None),
        (Fault::Status(302, None), None),
        (Fault::Hang, None),
        (Fault::Drop, None),
        (Fault::Truncated, None),
        (Fault::HalfJson, None),
        (Fault::Html, None),
        (Fault::Empty, None),
        (Fault::Giant, None),
        (Fault::SlowDrip, None),
        (
            Fault::Redirect(307, "http://192.0.2.1/{path}".to_owned()),
            None,
        ),
        (Fault::StringShape, Some(Ok)),
        (Fault::NoNewBans(200), Some(Ok)),
        (Fault::NoNewBans(400), Some(Ok)),
        (Fault::NoNewBans(404), Some(Ok)),
        (Fault::NoNewBans(408), Some(Ok)),
        (Fault::NoNewBansString(400), Some(Ok)),
        (Fault::BareNone(400), Some(Ok)),
        (Fault::Junk, Some(Ok)),
        (Fault::Poison, Some(Ok)),
        (Fault::EchoKey, Some(Ok)),
    ];
    let server = server();
    let listed = addresses(260);
    server.list_at("sip", now() - 5_000, &listed);
    for version in [ApiVersion::V1, ApiVersion::V2] {
        let mut feed = Feed::new(&server, version);
        feed.client = client(&server, version, 1);
        feed.fill();
        for (fault, state) in &faults {
            server.set_fault(fault.clone(), Some(1));
            feed.one_request();
            match state {
                Some(state) => assert_eq!(feed.state(), *state, "{fault:?}"),
                None => {
                    let status = feed.engine.status(feed.now);
                    assert_ne!(status.last_error, "", "{fault:?}");
                }
            }
            assert!(listed
                .iter()
                .all(|ip| feed.table.contains_key(&ip.parse().unwrap())));
            feed.one_request();
            assert_eq!(feed.state(), Ok, "after {fault:?}");
        }
        let junk = feed.logs.iter().filter(|text| text.contains("no address"));
        assert_eq!(junk.count(), 1);
        let status = feed.engine.status(feed.now);
        assert_eq!((status.rate_limited, status.fetch_errors), (4, 15));
    }
}

#[test]
fn a_service_that_repeats_itself_does_not_loop() {
    let server = server();
    server.list(&addresses(600));
    server.set_fault(Fault::SamePage, None);
    let mut feed = Feed::new(&server, ApiVersion::V2);
    feed.one_request();
    feed.one_request();
    assert_eq!(feed.table.len(), 250);
    assert!(feed.logs.last().unwrap().contains("repeats itself"));
    // Back in order, the next poll goes on where it stopped.
    server.clear_faults();
    feed.one_request();
    feed.one_request();
    assert_eq!((feed.table.len(), server.requests().len()), (600, 4));
}

#[test]
fn a_service_that_suddenly_lists_nothing_is_not_believed_at_once() {
    let server = server();
    server.list(&addresses(600));
    let mut feed = Feed::new(&server, ApiVersion::V2);
    feed.fill();
    server.set_fault(Fault::NoNewBans(400), Some(1));
    let key = Key::new(KEY).ok();
    feed.engine.reload(feed.now, key, false);
    feed.one_request();
    assert_eq!((feed.state(), feed.table.len()), (FeedState::Held, 600));
    while feed.full_done < 2 {
        feed.one_request();
    }
    assert_eq!((feed.state(), feed.table.len()), (FeedState::Ok, 600));
}

#[test]
fn the_timeout_is_for_the_whole_exchange() {
    let server = server();
    server.list(&addresses(250));
    for fault in [
        Fault::Hang,
        Fault::SlowDrip,
        Fault::Redirect(307, "{path}".to_owned()),
    ] {
        let hops = matches!(fault, Fault::Redirect(..));
        server.set_fault(fault, Some(1));
        if hops {
            server.set_fault(Fault::Hang, Some(1));
        }
        let result = ask(&mut client(&server, ApiVersion::V2, 1), None);
        let error = result.unwrap_err();
        assert_eq!(error.kind, FetchErrorKind::Timeout(1));
        assert_eq!(error.redirects, u32::from(hops));
    }
}

/// The rest of it is not even read.
#[test]
fn a_body_beyond_the_limit_is_an_error_of_its_own() {
    let server = server();
    server.set_fault(Fault::Giant, Some(1));
    let error = ask(&mut client(&server, ApiVersion::V2, 5), None).unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::TooLong);
}

#[test]
fn redirects_stay_on_the_host_and_keep_method_and_key() {
    let server = server();
    let other = FeedServer::start(Options::new(KEY)).unwrap();
    server.list(&["192.0.2.1"]);
    for version in [ApiVersion::V1, ApiVersion::V2] {
        for status in [301, 302, 307, 308] {
            server.set_fault(Fault::Redirect(status, "{path}".to_owned()), Some(3));
            let response = ask(&mut client(&server, version, 5), None).unwrap();
            assert_eq!((response.status, response.redirects), (200, 3));
        }
        server.set_fault(Fault::Redirect(302, "{path}".to_owned()), Some(4));
        let error = ask(&mut client(&server, version, 5), None).unwrap_err();
        assert!(
            matches!(error.kind, FetchErrorKind::Redirect(_)),
            "{error:?}"
        );
        assert_eq!(error.redirects, 3);
        for to in [
            format!("{}/get", other.url()),
            format!("http://localhost:{}{{path}}", server.address().port()),
            "https://192.0.2.1{path}".to_owned(),
            "ftp://127.0.0.1{path}".to_owned(),
            "relative".to_owned(),
        ] {
            server.set_fault(Fault::Redirect(302, to), Some(1));
            let error = ask(&mut client(&server, version, 5), None).unwrap_err();
            assert!(
                matches!(error.kind, FetchErrorKind::Redirect(_)),
                "{error:?}"
            );
            assert_eq!(error.redirects, 0);
        }
    }
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn errors_name_their_cause_and_never_the_key() {
    for version in [ApiVersion::V1, ApiVersion::V2] {
        let server = server();
        let mut client = client(&server, version, 5);
        drop(server);
        // The accepting thread may still be on its way out.
        let error = loop {
            match ask(&mut client, None) {
                Err(error) => break error.to_string(),
                Ok(_) => std::thread::yield_now(),
            }
        };
        assert!(error.contains("127.0.0.1:"), "{error}");
        let source = Source::new("http://no-such-host.invalid/api", version, Dataset::Sip).unwrap();
        let settings = HttpSettings {
            product: "apiban.so/test".to_owned(),
            source,
            timeout: 5,
            ca_file: None,
        };
        let error = ask(&mut HttpClient::new(settings), Some("5")).unwrap_err();
        assert!(
            error.to_string().contains("no-such-host.invalid"),
            "{error}"
        );
    }
}

#[test]
fn a_rate_limited_server_never_has_to_refuse() {
    for window in [Window::Sliding, Window::Fixed] {
        let mut options = Options::new(KEY);
        options.rate = Some((11, Duration::from_secs(1)));
        options.window = window;
        let server = FeedServer::start(options).unwrap();
        server.list(&addresses(5_001));
        let mut feed = Feed::new(&server, ApiVersion::V2);
        let source = source(&server, ApiVersion::V2);
        let config = FeedSettings {
            source,
            poll_interval: Duration::from_secs(300),
            resync_interval: Duration::from_secs(0),
            feed_ttl: Duration::from_secs(604_800),
            rate_limit_requests: 11,
            rate_limit_window: Duration::from_secs(1),
            feed_shrink_limit: 50,
        };
        // Here the clock is the real one: the server's is.
        let started = Instant::now();
        let epoch = UnixSeconds::saturating(now()).millis();
        let now = || epoch + started.elapsed();
        feed.engine = Engine::new(config, Key::new(KEY).ok(), None, now());
        let (wake, woken) = mpsc::channel();
        let waker = Box::new(move || wake.send(()).unwrap_or(()));
        let http = client(&server, ApiVersion::V2, 5);
        let mut worker = spawn(Box::new(http), waker).unwrap();
        while feed.full_done == 0 {
            match feed.engine.next(now()) {
                Step::Fetch(request) => worker.start(request),
                Step::Wait(until) => {
                    let pause = until.since(now());
                    // A wake-up may be left over from a result that was taken before it came.
                    let _ = woken.recv_timeout(pause);
                }
                Step::Busy => woken.recv_timeout(Duration::from_secs(10)).unwrap(),
                Step::Idle => panic!("there is a key"),
            }
            if let Some(result) = worker.try_result() {
                let known: Vec<Subnet> = feed.table.keys().copied().collect();
                feed.engine.on_result(now(), result, &|| known.clone());
                feed.carry_out();
            }
        }
        assert_eq!(feed.table.len(), 5_001);
        assert_eq!((server.requests().len(), server.refused()), (21, 0));
    }
}

/// An authority of our own, and a server with a certificate from it for `localhost`.
fn tls_server() -> (FeedServer, tempfile::NamedTempFile) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
        )
        .unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(certificate.pem().as_bytes()).unwrap();
    let mut options = Options::new(KEY);
    options.tls = Some(Arc::new(config));
    (FeedServer::start(options).unwrap(), file)
}

fn https(url: &str, ca_file: Option<&std::path::Path>) -> Result<Response, FetchError> {
    let source = Source::new(url, ApiVersion::V2, Dataset::Sip).unwrap();
    let ca_file = ca_file.map(Into::into);
    let settings = HttpSettings {
        product: "apiban.so/test".to_owned(),
        source,
        timeout: 5,
        ca_file,
    };
    ask(&mut HttpClient::new(settings), None)
}

#[test]
fn https_with_an_authority_of_our_own() {
    let (server, ca) = tls_server();
    server.list(&["192.0.2.1"]);
    assert_eq!(https(&server.url(), Some(ca.path())).unwrap().status, 200);
    // Nobody vouches for it, or not under this name.
    let error = https(&server.url(), None).unwrap_err();
    assert!(matches!(error.kind, FetchErrorKind::Tls(_)), "{error:?}");
    let by_address = server.url().replace("localhost", "127.0.0.1");
    let error = https(&by_address, Some(ca.path())).unwrap_err();
    assert!(matches!(error.kind, FetchErrorKind::Tls(_)), "{error:?}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let error = https(&server.url(), Some(empty.path())).unwrap_err();
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
    assert_eq!(server.requests().len(), 1);
    // Plain HTTP to a TLS port.
    let plain = server.url().replace("https", "http");
    assert!(https(&plain, Some(ca.path())).is_err());
}

#[test]
fn the_systems_authorities_come_from_the_environment() {
    const URL: &str = "APIBAN_TEST_HTTPS_URL";
    if let Ok(url) = std::env::var(URL) {
        // In the process below.
        assert_eq!(https(&url, None).unwrap().status, 200);
        return;
    }
    let (server, ca) = tls_server();
    server.list(&["192.0.2.1"]);
    let test = "the_systems_authorities_come_from_the_environment";
    passes(
        alone(&[], module_path!(), test)
            .env(URL, server.url())
            .env("SSL_CERT_FILE", ca.path())
            .env_remove("SSL_CERT_DIR"),
    );
    assert_eq!(server.requests().len(), 1);
}
