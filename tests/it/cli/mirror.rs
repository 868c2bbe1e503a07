//! `apiban feed` and `apiban run --listen`: what real clients get from the mirror.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use apiban_testing::feed_server::{Fault, FeedServer, Options};
use apiban_testing::kamailio::{Kamailio, Release};
use apiban_testing::netns::run;
use apiban_testing::wait::{poll, wait_until};

use super::program::Program;

const KEY: &str = "sEcRet0123456789";
const SOON: Duration = Duration::from_secs(30);

/// The program with a port of the system's choice.
pub struct Mirror {
    child: Child,
    pub address: SocketAddr,
}

impl Mirror {
    pub fn start(program: &Program, command: &str) -> Mirror {
        Mirror::start_at(program, command, "127.0.0.1:0")
    }

    pub fn start_at(program: &Program, command: &str, listen: &str) -> Mirror {
        let mut child = program
            .command(&[command, "--listen", listen])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its messages")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("the mirror listens on ")?.1.parse().ok())
            .expect("the mirror's address");
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Mirror { child, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status and body.
    pub fn get(&self, path: &str, arguments: &[&str]) -> (String, String) {
        let url = self.url(path);
        let mut all = vec!["-s", "-w", "\n%{http_code}"];
        all.extend(arguments);
        all.push(&url);
        let text = run("curl", &all);
        let (body, status) = text.rsplit_once('\n').expect("a status");
        (status.to_owned(), body.to_owned())
    }

    fn wait_ready(&self) {
        self.wait_ready_for(KEY);
    }

    /// Until it serves a list to who has this key.
    pub fn wait_ready_for(&self, key: &str) {
        wait_until("a complete list", SOON, || {
            self.get("/export/plain", &["-u", &format!("x:{key}")]).0 == "200"
        });
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn service() -> FeedServer {
    FeedServer::start(Options::new(KEY)).expect("the stand-in for the service")
}

fn mirroring(service: &FeedServer, config: &str) -> Program {
    Program::new(&format!(
        "api_key = \"{KEY}\"\napi_url = \"{}\"\nrate_limit_requests = 1000\nrate_limit_window = 1\n\
         trust_self = false\nhttp_timeout = 2\npoll_interval = 1\nfeed_rate_limit = 0\n{config}",
        service.url()
    ))
}

fn many(count: u32) -> Vec<String> {
    (0..count)
        .map(|n| format!("20.0.{}.{}", n / 250, n % 250))
        .collect()
}

#[test]
fn both_versions_of_the_interface_and_the_lists_for_devices() {
    let service = service();
    service.list(&many(600));
    let program = mirroring(&service, "trust = \"20.0.0.7\"\n");
    let mirror = Mirror::start(&program, "feed");
    mirror.wait_ready();
    // Version 2 to the end, as a client walks.
    let (mut id, mut found, mut sizes) = ("100".to_owned(), Vec::new(), Vec::new());
    loop {
        let body = format!("{{\"set\":\"sip\",\"id\":\"{id}\"}}");
        let (status, text) = mirror.get(
            "/api/get",
            &["-d", &body, "-H", "Authorization: Bearer any"],
        );
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        if status == "400" {
            assert_eq!(text, r#"{"ipaddress":["no new bans"],"ID":"none"}"#);
            break;
        }
        let page = json["ipaddress"].as_array().unwrap();
        sizes.push(page.len());
        found.extend(page.iter().map(|ip| ip.as_str().unwrap().to_owned()));
        id = json["ID"].as_str().unwrap().to_owned();
        // Version 1 says the same.
        let (_, old) = mirror.get(&format!("/api/any/banned/{id}"), &[]);
        let body = format!("{{\"id\":\"{id}\"}}");
        assert_eq!(old, mirror.get("/api/get", &["-d", &body]).1);
    }
    assert_eq!(sizes, [250, 250, 99]);
    found.sort();
    let mut expected = many(600);
    expected.retain(|ip| ip != "20.0.0.7");
    expected.sort();
    assert_eq!(found, expected, "every address but the trusted one, once");
    // CHECK.
    let (status, text) = mirror.get("/api/any/check/20.0.1.1", &[]);
    assert!(
        status == "200" && text.starts_with("{\"ipaddress\":[\"20.0.1.1\"],\"ID\":\"1"),
        "{text}"
    );
    let check = |ip: &str| {
        let body = format!("{{\"set\":\"sip\",\"ipaddress\":\"{ip}\"}}");
        mirror.get("/api/check", &["-d", &body])
    };
    assert_eq!(check("20.0.1.1").0, "200");
    for stranger in ["20.0.0.7", "192.0.2.1"] {
        let answer = check(stranger);
        assert_eq!(answer.1, r#"{"ipaddress":["not blocked"],"ID":"none"}"#);
        assert_eq!(answer.0, "400");
    }
    assert_eq!(check("x"), ("400".into(), "{}".into()));
    // Lists: as the program exports them.
    wait_until("the state file", SOON, || {
        program.run(&["list"]).out.lines().count() == 599
    });
    for format in ["plain", "json", "haproxy", "cisco-asa", "junos", "kamailio"] {
        let exported = program.run(&["export", format]).ok();
        assert_eq!(
            mirror.get(&format!("/export/{format}"), &[]).1,
            exported,
            "{format}"
        );
    }
    assert_eq!(
        mirror.get("/ipset/any/list", &[]).1,
        program.run(&["list"]).ok()
    );
    assert_eq!(mirror.get("/export/nothing", &[]).0, "404");
    assert_eq!(mirror.get("/", &[]).0, "404");
    // Another dataset is not this one.
    let (status, text) = mirror.get("/api/get", &["-d", "{\"set\":\"http\"}"]);
    assert!(status == "400" && text.contains("dataset sip"), "{text}");
}

#[test]
fn devices_fetch_only_what_changed() {
    let service = service();
    service.list(&many(300));
    let program = mirroring(&service, "");
    let mirror = Mirror::start(&program, "feed");
    mirror.wait_ready();
    let head = run("curl", &["-sI", &mirror.url("/export/plain")]).to_lowercase();
    let header = |name: &str| {
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect(name);
        line.trim().to_owned()
    };
    let length: usize = header("content-length: ").parse().unwrap();
    let plain = mirror.get("/export/plain", &[]).1;
    assert_eq!(length, plain.len());
    let etag = format!("If-None-Match: {}", header("etag: "));
    assert_eq!(
        mirror.get("/export/plain", &["-H", &etag]),
        ("304".into(), String::new())
    );
    // curl writes the date as the server did but for its case, which dates do not have.
    let date = run("curl", &["-sI", &mirror.url("/export/plain")]);
    let date = date
        .lines()
        .find_map(|line| line.strip_prefix("last-modified: "))
        .unwrap();
    let since = format!("If-Modified-Since: {}", date.trim());
    assert_eq!(mirror.get("/export/plain", &["-H", &since]).0, "304");
    assert_eq!(mirror.get("/export/plain", &["--compressed"]).1, plain);
    let zipped = run(
        "sh",
        &[
            "-c",
            &format!(
                "curl -s -H 'Accept-Encoding: gzip' {} | gunzip | wc -l",
                mirror.url("/export/plain")
            ),
        ],
    );
    assert_eq!(zipped.trim(), "300");
    service.list(&["203.0.113.7"]);
    wait_until("what is new", SOON, || {
        mirror.get("/export/plain", &["-H", &etag]).0 == "200"
    });
    assert!(mirror.get("/export/plain", &[]).1.contains("203.0.113.7"));
}

#[test]
fn the_module_and_the_program_fetch_from_it() {
    let service = service();
    service.list(&["127.0.0.66", "127.0.0.67"]);
    let program = mirroring(&service, "");
    let mirror = Mirror::start(&program, "run");
    mirror.wait_ready();
    let consumer = Program::new(&format!(
        "api_key = \"any\"\napi_url = \"{}\"\ntrust_self = false\n",
        mirror.url("/api")
    ));
    consumer.run(&["sync"]).ok();
    assert_eq!(consumer.run(&["list"]).ok(), "127.0.0.66\n127.0.0.67\n");
    for (release, version) in Release::all().iter().zip([1, 2].into_iter().cycle()) {
        let kamailio = Kamailio::builder()
            .release(release)
            .param("api_key", "any")
            .param("api_url", mirror.url("/api"))
            .param("api_version", version)
            .param("trust_self", 0)
            .request_route("if (apiban_check()) { exit; }")
            .start();
        kamailio.wait_dropped("127.0.0.66", SOON);
        kamailio.assert_answered("127.0.0.68");
    }
}

#[test]
fn the_talks_recipe_fetches_from_it() {
    let service = service();
    service.list(&many(300));
    let program = mirroring(&service, "");
    let mirror = Mirror::start(&program, "feed");
    mirror.wait_ready();
    let api = mirror.url("/api");
    let route = format!(
        "route[APIBAN] {{\n\
         $var(apiget) = \"{api}/{KEY}/banned\";\n\
         if ($sht(apibanctl=>ID) != 0) {{ $var(apiget) = \"{api}/{KEY}/banned/\" + $sht(apibanctl=>ID); }}\n\
         http_client_query(\"$var(apiget)\", \"$var(banned)\");\n\
         if ($rc != 200) {{ exit; }}\n\
         $var(count) = 0;\n\
         jansson_array_size(\"ipaddress\", $var(banned), \"$var(size)\");\n\
         while ($var(count) < $var(size)) {{\n\
         jansson_get(\"ipaddress[$var(count)]\", $var(banned), \"$var(blockaddr)\");\n\
         $sht(apiban=>$var(blockaddr)) = 1;\n\
         $var(count) = $var(count) + 1;\n }}\n\
         jansson_get(\"ID\", $var(banned), \"$var(apiid)\");\n\
         $sht(apibanctl=>ID) = $var(apiid);\n}}\n"
    );
    let kamailio = Kamailio::plain()
        .children(1)
        .global("max_while_loops=250")
        .load("htable")
        .load("http_client")
        .load("jansson")
        .load("rtimer")
        .modparam("htable", "htable", "apiban=>size=11;")
        .modparam("htable", "htable", "apibanctl=>size=1;initval=0;")
        .modparam("rtimer", "timer", "name=apiban;interval=200000u;mode=1;")
        .modparam("rtimer", "exec", "timer=apiban;route=APIBAN")
        .routes(&route)
        .start();
    wait_until("two pages in the htable", SOON, || {
        let dump = kamailio
            .kamcmd(&["htable.dump", "apiban"])
            .unwrap_or_default();
        dump.matches("name: 20.0.").count() == 300
    });
}

#[test]
fn only_who_has_a_key_and_not_too_often() {
    let service = service();
    service.list(&many(10));
    let program = mirroring(&service, "");
    let keys = program.file("keys", &format!("# consumers\n{KEY}\n"));
    let config = std::fs::read_to_string(program.dir().join("apiban.toml")).unwrap();
    let limited = config.replace("feed_rate_limit = 0", "feed_rate_limit = 12")
        + &format!("feed_keys_file = \"{}\"\n", keys.display());
    // Others can reach this address: without keys the mirror does not start.
    let refused = program.run(&["feed", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("feed_keys_file"), "{refused:?}");
    program.file(
        "apiban.toml",
        &limited.replace("rate_limit_window = 1\n", "rate_limit_window = 600\n"),
    );
    let mirror = Mirror::start(&program, "feed");
    for (path, arguments, status) in [
        ("/export/plain", vec![], "401"),
        ("/export/plain", vec!["-u", "x:wrong"], "401"),
        ("/api/wrong/banned", vec![], "403"),
        (
            "/api/get",
            vec!["-d", "{}", "-H", "Authorization: Bearer wrong"],
            "403",
        ),
        ("/ipset/wrong/list", vec![], "403"),
    ] {
        assert_eq!(
            mirror.get(path, &arguments).0,
            status,
            "{path} {arguments:?}"
        );
    }
    let good = format!("x:{KEY}");
    let ok = poll(SOON, || {
        (mirror.get("/export/plain", &["-u", &good]).0 == "200").then_some(())
    });
    let over = poll(SOON, || {
        (mirror.get("/export/plain", &["-u", &good]).0 == "429").then_some(())
    });
    assert!(ok.is_some() && over.is_some());
    let (_, text) = mirror.get(&format!("/api/{KEY}/banned"), &[]);
    assert_eq!(
        text,
        r#"{"ipaddress":"rate limit exceeded","ID":"unauthorized"}"#
    );
}

#[test]
fn before_there_is_a_whole_list_it_serves_none() {
    let service = service();
    service.list(&many(10));
    service.set_fault(Fault::Status(503, None), None);
    let program = mirroring(&service, "");
    let mirror = Mirror::start(&program, "feed");
    for path in [
        "/export/plain",
        "/api/k/banned",
        "/ipset/k/list",
        "/api/k/check/192.0.2.1",
    ] {
        assert_eq!(mirror.get(path, &[]).0, "503", "{path}");
    }
    service.clear_faults();
    mirror.wait_ready();
    // The next start has the list from the state file, whatever the service does.
    wait_until("the state file", SOON, || program.state_file().exists());
    drop(mirror);
    program.run(&["sync"]).ok();
    service.set_fault(Fault::Status(503, None), None);
    let mirror = Mirror::start(&program, "feed");
    mirror.wait_ready();
}

#[test]
fn a_client_that_sends_too_much_harms_nobody_else() {
    let service = service();
    service.list(&many(10));
    let program = mirroring(&service, "");
    let mirror = Mirror::start(&program, "feed");
    mirror.wait_ready();
    let send = |text: &str| {
        let mut stream = TcpStream::connect(mirror.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let long = "x".repeat(20 << 10);
    let answer = send(&format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"));
    assert!(
        answer.starts_with("HTTP/1.1 431") || answer.is_empty(),
        "{answer}"
    );
    let answer = send(&format!("POST /api/get HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{long}", long.len()));
    assert!(
        answer.starts_with("HTTP/1.1 413") || answer.is_empty(),
        "{answer}"
    );
    let answer = send("nonsense\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 400") || answer.is_empty(),
        "{answer}"
    );
    assert_eq!(mirror.get("/export/plain", &["-X", "DELETE"]).0, "405");
    // Connections that say nothing do not keep others out.
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(mirror.address).unwrap())
        .collect();
    assert_eq!(mirror.get("/export/plain", &[]).0, "200");
    drop(idle);
}
