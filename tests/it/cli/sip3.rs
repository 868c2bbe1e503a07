//! `examples/clients/sip3.groovy` with a real Groovy, a stand-in for SIP3 around it, and the real mirror.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::ports::Port;
use apiban_testing::wait::{wait_until, SOON};
use serde_json::{json, Value};

use super::clients::{Running, LISTED};
use super::mirror::Mirror;
use super::program::Program;

const KEY: &str = "sEcRet0123456789";

/// SIP3 with the function.
struct Host {
    _groovy: Running,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Host {
    /// Starts it with a copy of the example that asks `mirror`.
    fn start(program: &Program, mirror: &str) -> Host {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let example = fs::read_to_string(root.join("examples/clients/sip3.groovy")).unwrap();
        let line = "def mirror = 'http://127.0.0.1:8088/ipset/KEY/list'\n";
        assert_eq!(example.matches(line).count(), 1, "what operators change");
        let own = format!("def mirror = '{mirror}'\n");
        let function = program.file("apiban.groovy", &example.replace(line, &own));
        let mut groovy = Command::new("groovy")
            .arg(root.join("tests/it/cli/sip3_host.groovy"))
            .arg(function)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("groovy (apt-get install groovy default-jre-headless)");
        Host {
            commands: groovy.stdin.take().expect("its input"),
            answers: BufReader::new(groovy.stdout.take().expect("its output")),
            _groovy: Running(groovy),
        }
    }

    fn ask(&mut self, command: &str) -> Value {
        writeln!(self.commands, "{command}").expect("groovy reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        let answer: Value = serde_json::from_str(&line).expect("JSON: groovy has told why");
        assert_eq!(answer["trouble"], json!([]), "{command}");
        answer
    }

    /// Whether a packet from there is marked. Marked or not, it goes on.
    fn marks(&mut self, source: &str) -> bool {
        let answer = self.ask(&format!("packet {source}"));
        assert_eq!(answer["replies"], json!([true]), "{source}");
        match &answer["attributes"] {
            none if *none == json!({}) => false,
            marked if *marked == json!({"apiban": true}) => true,
            other => panic!("{source}: {other}"),
        }
    }

    /// Five minutes later.
    fn fetch_again(&mut self) {
        assert_eq!(self.ask("turn")["periods"], json!([300_000]));
        self.ask("settle");
    }
}

#[test]
fn calls_of_who_is_listed_are_marked_whatever_becomes_of_the_mirror() {
    let service = FeedServer::start(Options::new(KEY)).expect("the stand-in for the service");
    service.list(&LISTED);
    let program = Program::new(&format!(
        "api_key = \"{KEY}\"\napi_url = \"{}\"\ntrust_self = false\npoll_interval = 1\n\
         rate_limit_requests = 1000\nrate_limit_window = 1\nfeed_rate_limit = 0\n",
        service.url()
    ));
    let port = Port::reserve();
    let listen = format!("127.0.0.1:{}", port.number());

    // What listens there takes the request and says nothing. Packets do not wait for it.
    let silent = TcpListener::bind(&listen).unwrap();
    let mut sip3 = Host::start(&program, &format!("http://{listen}/ipset/{KEY}/list"));
    assert!(!sip3.marks("192.0.2.7"));
    assert_eq!(sip3.ask("")["blocking"], 1, "the first fetch is under way");
    drop(silent);
    sip3.fetch_again();
    assert!(!sip3.marks("192.0.2.7"), "nobody listens there");

    let mirror = Mirror::start_at(&program, "feed", &listen);
    mirror.wait_ready_for(KEY);
    sip3.fetch_again();
    let marked = ["192.0.2.7", "198.51.100.77", "203.0.113.5"];
    // As Java writes an IPv6 address, and as others do.
    let marked_v6 = ["2001:db8:0:0:0:0:0:7", "2001:db8::7"];
    let has_list = |sip3: &mut Host| {
        for source in marked.iter().chain(&marked_v6) {
            assert!(sip3.marks(source), "{source}");
        }
        for source in ["192.0.2.8", "198.51.101.1", "2001:db8::8", "::c000:207"] {
            assert!(!sip3.marks(source), "{source}");
        }
    };
    has_list(&mut sip3);

    service.list(&["203.0.113.200"]);
    wait_until("what is new", SOON, || {
        sip3.fetch_again();
        sip3.marks("203.0.113.200")
    });

    // The mirror goes, and something else answers in its place: what was listed stays.
    drop(mirror);
    sip3.fetch_again();
    has_list(&mut sip3);
    let other = TcpListener::bind(&listen).unwrap();
    let answers = std::thread::spawn(move || {
        let (stream, _) = other.accept().unwrap();
        let mut request = BufReader::new(stream);
        let mut line = String::new();
        while request.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        let page =
            "HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\nPlease sign in";
        request.get_mut().write_all(page.as_bytes()).unwrap();
    });
    sip3.fetch_again();
    answers.join().unwrap();
    has_list(&mut sip3);
}
