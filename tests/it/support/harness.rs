//! The harness on trial: a Kamailio without our module must start, answer, fail and end as the other
//! tests rely on.

use apiban_testing::kamailio::{is_alive, is_root, Fault, Kamailio, Release};
use apiban_testing::ports::has_ipv6;
use apiban_testing::sip::Answer;
use apiban_testing::wait::SOON;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

fn answers_everywhere(kamailio: &Kamailio) {
    assert_eq!(kamailio.udp("127.0.0.5").options(), Answer::Status(200));
    assert_eq!(kamailio.tcp("127.0.0.5").options(), Answer::Status(200));
    let mut tcp = kamailio.tcp("127.0.0.6");
    assert_eq!(tcp.invite(), Answer::Status(200));
    assert_eq!(tcp.register(), Answer::Status(200));
}

#[test]
fn answers_udp_and_tcp_with_the_source_we_chose() {
    let kamailio = Kamailio::plain()
        .request_route(r#"xlog("L_INFO", "from $si $proto $rm\n");"#)
        .start();
    answers_everywhere(&kamailio);
    kamailio.wait_for_log("from 127.0.0.5 udp OPTIONS", SOON);
    kamailio.wait_for_log("from 127.0.0.5 tcp OPTIONS", SOON);
    kamailio.wait_for_log("from 127.0.0.6 tcp INVITE", SOON);
    let stopped = kamailio.stop();
    assert!(stopped.status.success(), "{}", stopped.log);
}

#[test]
fn every_release_answers() {
    for release in Release::all() {
        let kamailio = Kamailio::plain().release(&release).start();
        answers_everywhere(&kamailio);
        let version = kamailio.kamcmd(&["core.version"]).expect("core.version");
        println!("{}: {version}", release.name());
        let json = kamailio.jsonrpc("core.version", serde_json::json!([]));
        assert_eq!(json.expect("core.version"), version.trim_end_matches('\n'));
        assert!(kamailio.statistic("core", "rcv_requests") >= 4);
        assert!(kamailio.stop().status.success());
    }
}

#[test]
fn answers_over_tls_in_every_release() {
    for release in Release::all() {
        let kamailio = Kamailio::plain().release(&release).tls().start();
        let mut tls = kamailio.tls("127.0.0.7");
        assert_eq!(tls.options(), Answer::Status(200), "{}", release.name());
        assert_eq!(tls.invite(), Answer::Status(200), "{}", release.name());
    }
}

#[test]
fn answers_over_ipv6() {
    if !has_ipv6() {
        return eprintln!("this machine has no ::1");
    }
    let kamailio = Kamailio::plain().ipv6().start();
    assert_eq!(kamailio.udp("::1").options(), Answer::Status(200));
    assert_eq!(kamailio.tcp("::1").options(), Answer::Status(200));
}

#[test]
fn a_drop_is_told_from_an_answer() {
    let kamailio = Kamailio::plain()
        .children(4)
        .request_route(r#"if ($si == "127.0.0.66") { exit; }"#)
        .start();
    kamailio.assert_dropped("127.0.0.66");
    assert!(kamailio.drops_on(&mut kamailio.tcp("127.0.0.66")));
    kamailio.assert_answered("127.0.0.5");
    assert!(!kamailio.drops("127.0.0.5"));
    assert!(!kamailio.drops_on(&mut kamailio.tcp("127.0.0.5")));
}

#[test]
fn raw_bytes_are_matched_by_their_call_id() {
    let kamailio = Kamailio::plain().start();
    let mut sip = kamailio.udp("127.0.0.5");
    let text = sip.text("OPTIONS", "chosen-here");
    assert_eq!(sip.raw(text.as_bytes()), Answer::Status(200));
    let mut impatient = kamailio
        .udp("127.0.0.5")
        .with_deadline(Duration::from_millis(50));
    let noise = "x".repeat(64);
    assert_eq!(impatient.raw(noise.as_bytes()), Answer::Nothing);
}

#[test]
fn a_failed_start_gives_the_log() {
    let log = Kamailio::plain()
        .modparam("tm", "no_such_parameter", 1)
        .expect_start_failure();
    assert!(log.contains("no_such_parameter"), "{log}");
    let log = Kamailio::plain()
        .load("no_such_module")
        .expect_start_failure();
    assert!(log.contains("no_such_module"), "{log}");
}

#[test]
fn faults_have_code_and_text() {
    let kamailio = Kamailio::plain().start();
    let fault = kamailio.kamcmd(&["no.such"]).expect_err("a fault");
    let text = "command no.such not found".into();
    assert_eq!(fault, Fault { code: 500, text });
    let fault = kamailio
        .jsonrpc("no.such", serde_json::json!([]))
        .expect_err("a fault");
    assert_eq!(fault.text, "Method Not Found");
}

#[test]
fn nothing_is_left_behind() {
    let kamailio = Kamailio::plain().start();
    let dir = kamailio.dir().to_path_buf();
    let processes = kamailio.processes();
    assert!(processes.len() > 5, "{processes:?}");
    assert_eq!(kamailio.pid_of("main process"), kamailio.pid());
    drop(kamailio);
    for process in processes {
        assert!(!is_alive(process.pid), "{process:?}");
    }
    assert!(!dir.exists());

    let kamailio = Kamailio::plain().start();
    let worker = kamailio.pid_of("udp receiver");
    kamailio.kill9();
    assert!(!is_alive(worker));
}

#[test]
fn the_end_of_a_worker_ends_all() {
    let kamailio = Kamailio::plain().start();
    let worker = kamailio.pid_of("udp receiver");
    kamailio.signal(worker, nix::sys::signal::Signal::SIGKILL);
    let stopped = kamailio.wait_for_end(Duration::from_secs(20));
    assert!(!stopped.status.success(), "{}", stopped.log);
}

#[test]
fn files_and_defines_reach_the_configuration() {
    let kamailio = Kamailio::plain()
        .define("GREETING=\"hello from a define\"")
        .file("extra.cfg", "route[EXTRA] { xlog(\"L_INFO\", GREETING); }")
        .request_route("route(EXTRA);")
        .routes("include_file \"@DIR@/extra.cfg\"")
        .start();
    kamailio.assert_answered("127.0.0.5");
    kamailio.wait_for_log("hello from a define", SOON);
}

#[test]
fn runs_as_another_user() {
    if !is_root() {
        return eprintln!("only root can start Kamailio as another user");
    }
    for release in Release::all() {
        let kamailio = Kamailio::plain().release(&release).user("kamailio").start();
        let worker = kamailio.pid_of("udp receiver");
        let owner = std::fs::metadata(format!("/proc/{worker}")).expect("process");
        assert_ne!(owner.uid(), 0);
        kamailio.assert_answered("127.0.0.5");
        assert!(kamailio
            .jsonrpc("core.version", serde_json::json!([]))
            .is_ok());
    }
}

#[test]
fn the_syntax_check_tells_good_from_bad() {
    assert!(Kamailio::plain().check().is_ok());
    let complaint = Kamailio::plain()
        .request_route("no_such_function();")
        .check()
        .expect_err("an unknown function");
    assert!(complaint.contains("no_such_function"), "{complaint}");
}

#[test]
fn the_sample_without_the_module_serves_in_every_release() {
    let sample = include_str!("../../../kamailio.cfg.sample");
    for release in Release::all() {
        let plain = Kamailio::plain().release(&release).config(sample);
        let off = plain.define("APIBAN_OFF");
        let with_pbx = off.clone().define("APIBAN_PBX=\"sip:192.0.2.10\"").check();
        assert!(with_pbx.is_ok(), "{}: {with_pbx:?}", release.name());
        let kamailio = off.start();
        assert_eq!(kamailio.udp("127.0.0.5").options(), Answer::Status(200));
        assert_eq!(kamailio.tcp("127.0.0.5").options(), Answer::Status(200));
        assert_eq!(kamailio.udp("127.0.0.5").invite(), Answer::Status(404));
    }
}
