//! The mirror and the clients that are in use: each asks as it does, and understands the answer as it does.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use apiban_testing::feed_server::{FeedServer, Options};
use apiban_testing::netns::{in_namespace, run};
use serde_json::Value;

use super::mirror::Mirror;
use super::program::Program;

const KEY: &str = "sEcRet0123456789";
const SOON: Duration = Duration::from_secs(30);

fn listed() -> Vec<String> {
    (0..600)
        .map(|n| format!("20.0.{}.{}", n / 250, n % 250))
        .collect()
}

/// A mirror that has the whole list, and takes this key alone.
fn mirror(service: &FeedServer) -> (Program, Mirror) {
    service.list(&listed());
    let program = Program::new(&format!(
        "api_key = \"{KEY}\"\napi_url = \"{}\"\nrate_limit_requests = 1000\nrate_limit_window = 1\n\
         trust_self = false\npoll_interval = 1\nfeed_rate_limit = 0\n",
        service.url()
    ));
    let keys = program.file("keys", &format!("{KEY}\n"));
    let config = std::fs::read_to_string(program.dir().join("apiban.toml")).unwrap();
    program.file(
        "apiban.toml",
        &format!("{config}feed_keys_file = \"{}\"\n", keys.display()),
    );
    let mirror = Mirror::start(&program, "feed");
    mirror.wait_ready_for(KEY);
    (program, mirror)
}

fn service() -> FeedServer {
    FeedServer::start(Options::new(KEY)).expect("the stand-in for the service")
}

/// One connection that is kept open, as Go's HTTP client does.
struct KeptOpen(BufReader<TcpStream>);

impl KeptOpen {
    fn to(mirror: &Mirror) -> KeptOpen {
        let stream = TcpStream::connect(mirror.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        KeptOpen(BufReader::new(stream))
    }

    /// Status and JSON of a request with the headers that Go sends by itself.
    fn post(&mut self, path: &str, key: &str, body: &str) -> (u16, Value) {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: mirror.example\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: {}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
             Accept-Encoding: gzip\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length, mut zipped) = (0, 0, false);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end().to_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
            zipped |= line == "content-encoding: gzip";
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).unwrap();
        assert!(!zipped, "a page is small");
        (status, serde_json::from_slice(&text).unwrap())
    }
}

#[test]
fn the_go_client_walks_the_list_over_one_connection() {
    let service = service();
    let (_program, mirror) = mirror(&service);
    let mut client = KeptOpen::to(&mirror);
    // It begins at "100", goes on with what it was told, and ends at "none" or at its own ID.
    let (mut id, mut found) = ("100".to_owned(), BTreeSet::new());
    for _ in 0..10 {
        let body = format!("{{\"set\":\"sip\",\"id\":\"{id}\"}}\n");
        let (status, page) = client.post("/api/get", KEY, &body);
        assert!(matches!(status, 200 | 400), "{page}");
        let next = page["ID"].as_str().expect("a text").to_owned();
        if next == "none" {
            break;
        }
        let addresses = page["ipaddress"].as_array().unwrap();
        assert!(addresses.len() <= 250);
        found.extend(addresses.iter().map(|ip| ip.as_str().unwrap().to_owned()));
        assert_ne!(next, id);
        id = next;
    }
    assert_eq!(found, listed().into_iter().collect());
    // At its next start there is nothing new.
    let body = format!("{{\"set\":\"sip\",\"id\":\"{id}\"}}\n");
    assert_eq!(client.post("/api/get", KEY, &body).1["ID"], "none");
    let check = |client: &mut KeptOpen, ip: &str| {
        client.post(
            "/api/check",
            KEY,
            &format!("{{\"set\":\"sip\",\"ipaddress\":\"{ip}\"}}\n"),
        )
    };
    let (status, answer) = check(&mut client, "20.0.1.1");
    assert_eq!((status, &answer["ipaddress"][0]), (200, &"20.0.1.1".into()));
    let (status, answer) = check(&mut client, "192.0.2.1");
    assert_eq!(
        (status, &answer["ipaddress"][0]),
        (400, &"not blocked".into())
    );
    // A wrong key is told in the words that it knows.
    let (status, answer) = client.post("/api/get", "wrong", "{\"set\":\"sip\",\"id\":\"100\"}\n");
    assert_eq!((status, &answer["ID"]), (403, &"unauthorized".into()));
}

#[test]
fn a_shell_client_fills_nft_and_iptables_from_version_1() {
    in_namespace(|| {
        let service = service();
        let (_program, mirror) = mirror(&service);
        let script = r#"
            set -e
            nft 'add table ip filter; add set ip filter APIBAN { type ipv4_addr; }'
            iptables -N APIBAN
            id=100
            while :; do
                page=$(curl -s "$API/$KEY/banned/$id")
                next=$(printf %s "$page" | sed 's/.*"ID":"\([^"]*\)".*/\1/')
                [ "$next" = none ] && break
                for ip in $(printf %s "$page" | grep -o '"[0-9.]*\.[0-9.]*"' | tr -d '"'); do
                    echo "add element ip filter APIBAN { $ip }"
                done | nft -f -
                id=$next
            done
            curl -s "$API/$KEY/check/20.0.0.1" | grep -q '"20.0.0.1"' && iptables -A APIBAN -s 20.0.0.1 -j REJECT
            curl -s "$API/$KEY/check/192.0.2.1" | grep -q 'not blocked'
        "#;
        let ran = Command::new("bash")
            .args(["-c", script])
            .env("API", mirror.url("/api"))
            .env("KEY", KEY)
            .output()
            .expect("bash");
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        let set = run("nft", &["-j", "list", "set", "ip", "filter", "APIBAN"]);
        let json: Value = serde_json::from_str(&set).unwrap();
        let held = json["nftables"][1]["set"]["elem"]
            .as_array()
            .expect("elements");
        assert_eq!(held.len(), 600);
        assert!(run("iptables", &["-S", "APIBAN"]).contains("-s 20.0.0.1/32 -j REJECT"));
    });
}

#[test]
fn kamclis_own_command_gets_pages_and_answers() {
    let service = service();
    let (_program, mirror) = mirror(&service);
    // http.client of Python, version 1, the key in the path, to the ID "none".
    let script = r#"
import http.client, json, sys
host, key = sys.argv[1:]
def get(path):
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())
found, path = [], f"/api/{key}/banned"
while True:
    status, page = get(path)
    if page["ID"] == "none":
        break
    assert status == 200, status
    found += page["ipaddress"]
    path = f"/api/{key}/banned/{page['ID']}"
print(len(found), len(set(found)), get(f"/api/{key}/check/20.0.2.9")[0], get(f"/api/{key}/check/192.0.2.1")[0])
"#;
    let found = run("python3", &["-c", script, &mirror.address.to_string(), KEY]);
    assert_eq!(found.trim(), "600 600 200 400");
}

#[test]
fn url_tables_of_firewalls_fetch_with_a_password_in_the_url() {
    let service = service();
    let (_program, mirror) = mirror(&service);
    let with_key = format!("http://firewall:{KEY}@{}", mirror.address);
    let plain = run("curl", &["-sf", &format!("{with_key}/export/plain")]);
    let found: BTreeSet<String> = plain.lines().map(str::to_owned).collect();
    assert_eq!(found, listed().into_iter().collect());
    assert_eq!(
        run(
            "curl",
            &[
                "-sf",
                &format!("http://{}/ipset/{KEY}/list", mirror.address)
            ]
        ),
        plain
    );
    // OPNsense's JSON alias, with its path expression ".[].ip".
    let json: Value =
        serde_json::from_str(&run("curl", &["-sf", &format!("{with_key}/export/json")])).unwrap();
    let members: BTreeSet<String> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["ip"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(members, found);
    // An SRX asks with HEAD first, and fetches only what is newer.
    let head = run("curl", &["-sfI", &format!("{with_key}/export/plain")]);
    let modified = head
        .lines()
        .find_map(|line| line.strip_prefix("last-modified: "))
        .expect("a date");
    let since = format!("If-Modified-Since: {}", modified.trim());
    assert_eq!(
        mirror
            .get("/export/plain", &["-u", &format!("x:{KEY}"), "-H", &since])
            .0,
        "304"
    );
    // Without the key the list that the firewall has stays: an error, never an empty list.
    let (status, body) = mirror.get("/export/plain", &[]);
    assert!(
        status == "401" && !body.contains("20.0."),
        "{status} {body}"
    );
}
