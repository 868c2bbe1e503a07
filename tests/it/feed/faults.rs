//! A service that fails in every way: the list that is there stays, nothing leaks, and the next reload
//! finds a service that works again; HTTPS only where its certificate is trusted.

use apiban_testing::fed::{fed, service, KEY, LISTED};
use apiban_testing::feed_server::{Fault, FeedServer, Options};
use apiban_testing::kamailio::Kamailio;
use apiban_testing::tls::Certificate;
use apiban_testing::wait::{wait_until, SOON};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

fn statistic(kamailio: &Kamailio, name: &str) -> u64 {
    kamailio.statistic("apiban", name)
}

/// One answer after the other is wrong; each must count as an error, change nothing and be forgotten.
fn survives(version: i32, faults: Vec<Fault>) {
    let service = service();
    service.list(&[LISTED]);
    let kamailio = fed(&service).param("api_version", version).debug(3).start();
    kamailio.wait_dropped(LISTED, SOON);
    for (count, fault) in (1..).zip(faults) {
        service.set_fault(fault.clone(), Some(1));
        kamailio.ask("apiban.reload", &[]);
        wait_until(&format!("{fault:?} to count"), SOON, || {
            statistic(&kamailio, "fetch_errors") == count
        });
        let error = kamailio.ask("apiban.status", &[])["feed"]["last_error"].clone();
        assert_ne!(error, "", "{fault:?}");
        kamailio.assert_dropped(LISTED);
        kamailio.assert_answered("127.0.0.5");
        let before = statistic(&kamailio, "fetch_ok");
        kamailio.ask("apiban.reload", &[]);
        wait_until("a good answer", SOON, || {
            statistic(&kamailio, "fetch_ok") > before
        });
        let status = kamailio.ask("apiban.status", &[]);
        assert_eq!(status["feed"]["last_error"], "", "{fault:?}: {status}");
        assert!(
            !status.to_string().contains(KEY) && !error.to_string().contains(KEY),
            "{fault:?}"
        );
    }
    assert_eq!(statistic(&kamailio, "feed_entries"), 1);
    assert!(!kamailio.log().contains(KEY), "{}", kamailio.log());
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
    assert!(!stopped.log.contains(KEY), "{}", stopped.log);
}

/// Answers that are none. Another host is another address of loopback: nothing must ask it.
fn faults() -> Vec<Fault> {
    vec![
        Fault::Status(500, None),
        Fault::Status(503, Some(3600)),
        Fault::Status(404, None),
        Fault::Drop,
        Fault::Truncated,
        Fault::HalfJson,
        Fault::Html,
        Fault::Empty,
        Fault::Giant,
        Fault::Redirect(302, "http://127.0.0.9:1{path}".into()),
        Fault::Redirect(307, "http://127.0.0.9:1{path}".into()),
    ]
}

#[test]
fn version_1_survives_every_fault() {
    survives(1, faults());
}

#[test]
fn version_2_survives_every_fault() {
    survives(2, faults());
}

#[test]
fn a_service_that_hangs_is_left_in_time() {
    let service = service();
    service.list(&[LISTED]);
    service.set_fault(Fault::Hang, Some(1));
    let kamailio = fed(&service).param("http_timeout", 1).start();
    let line = kamailio.wait_for_log("timeout after 1 s", SOON);
    assert!(line.contains("WARNING: apiban"), "{line}");
    kamailio.assert_answered("127.0.0.5");
    kamailio.ask("apiban.reload", &[]);
    kamailio.wait_dropped(LISTED, SOON);
}

#[test]
fn the_key_in_an_answer_is_not_repeated() {
    let service = service();
    service.set_fault(Fault::EchoKey, Some(1));
    let kamailio = fed(&service).debug(3).start();
    wait_until("the page", SOON, || {
        kamailio.verdict("192.0.2.253")["banned"] == 1
    });
    let status = kamailio.ask("apiban.status", &[]).to_string();
    assert!(
        !status.contains(KEY) && !kamailio.log().contains(KEY),
        "{}",
        kamailio.log()
    );
}

#[test]
fn a_service_that_is_not_there_is_said_once() {
    let service = service();
    let builder = fed(&service).param("api_version", 1);
    drop(service);
    let kamailio = builder.start();
    wait_until("the first try", SOON, || {
        statistic(&kamailio, "fetch_errors") == 1
    });
    for count in 2..5 {
        kamailio.ask("apiban.reload", &[]);
        wait_until("one more try", SOON, || {
            statistic(&kamailio, "fetch_errors") == count
        });
    }
    kamailio.assert_answered(LISTED);
    let log = kamailio.module_log().join("\n");
    assert!(!log.contains(KEY), "{log}");
    let status = kamailio.ask("apiban.status", &[]);
    assert_eq!(status["feed"]["state"], "starting", "{status}");
    assert_ne!(status["feed"]["last_error"], "", "{status}");
}

#[test]
fn https_where_the_certificate_is_trusted_and_only_there() {
    let certificate = Certificate::generate();
    let chain = CertificateDer::from_pem_slice(certificate.certificate_pem.as_bytes())
        .expect("certificate");
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).expect("key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("TLS server");
    let options = Options {
        tls: Some(Arc::new(tls)),
        ..Options::new(KEY)
    };
    let service = FeedServer::start(options).expect("the stand-in for the service");
    assert!(service.url().starts_with("https://"));
    service.list(&[LISTED]);

    let stranger = fed(&service).start();
    wait_until("the refusal", SOON, || {
        statistic(&stranger, "fetch_errors") == 1
    });
    let error = stranger.ask("apiban.status", &[])["feed"]["last_error"].to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    stranger.assert_answered(LISTED);
    assert!(service.requests().is_empty());
    drop(stranger);

    let folder = tempfile::TempDir::new().expect("directory");
    let store = folder.path().join("ca.pem");
    std::fs::write(&store, &certificate.certificate_pem).expect("CA file");
    let friend = fed(&service)
        .environment("SSL_CERT_FILE", &store.display().to_string())
        .start();
    friend.wait_dropped(LISTED, SOON);
    friend.assert_answered("127.0.0.5");
}
