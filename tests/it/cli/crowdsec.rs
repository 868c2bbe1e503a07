//! `examples/clients/crowdsec` with a real CrowdSec: what a bouncer of it is told.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use apiban_testing::netns::{in_namespace, run};
use apiban_testing::wait::{wait_until, SOON};
use serde_json::Value;

use super::clients::{Examples, Running, LISTED};

/// Nobody else is in the namespace.
const ADDRESS: &str = "127.0.0.1:8080";

/// A CrowdSec without detection; it ends with the test.
struct CrowdSec {
    _server: Running,
    /// Of a bouncer.
    key: String,
}

impl CrowdSec {
    /// Starts one with its files beside those of the examples, which find its `cscli`.
    fn start(examples: &Examples) -> CrowdSec {
        let cache = apiban_testing::cache_dir().display().to_string();
        let tree = format!("{cache}/unpacked/crowdsec");
        assert!(
            Path::new(&tree).exists(),
            "{tree} is missing: tests/run makes it"
        );
        let dir = examples.program.dir().display().to_string();
        fs::create_dir(format!("{dir}/hub")).unwrap();
        for (name, content) in [
            ("hub/.index.json", "{}"),
            ("login.yaml", ""),
            ("simulation.yaml", "simulation: off\n"),
        ] {
            examples.program.file(name, content);
        }
        let config = examples.program.file(
            "crowdsec.yaml",
            &format!(
                "common: {{ daemonize: false, log_media: stdout }}
config_paths: {{ config_dir: {dir}, data_dir: {dir}, hub_dir: {dir}/hub, index_path: {dir}/hub/.index.json,
  simulation_path: {dir}/simulation.yaml }}
crowdsec_service: {{ enable: false }}
db_config: {{ type: sqlite, db_path: {dir}/crowdsec.db }}
api:
  client: {{ credentials_path: {dir}/login.yaml }}
  server: {{ listen_uri: \"{ADDRESS}\", profiles_path: {tree}/etc/crowdsec/profiles.yaml }}
"
            ),
        );
        let config = config.display();
        examples.command(
            "cscli",
            &format!("exec {tree}/usr/bin/cscli -c {config} \"$@\""),
        );
        let cscli = examples.file("bin/cscli").display().to_string();
        let url = format!("http://{ADDRESS}");
        let login = format!("{dir}/login.yaml");
        run(&cscli, &["machines", "add", "-a", "-f", &login, "-u", &url]);
        let log = fs::File::create(examples.file("crowdsec.log")).unwrap();
        let server = Command::new(format!("{tree}/usr/bin/crowdsec"))
            .args(["-no-cs", "-c", &config.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("crowdsec");
        let server = Running(server);
        let health = format!("{url}/health");
        wait_until("CrowdSec answers", SOON, || {
            let asked = Command::new("curl").args(["-fs", &health]).output();
            asked.is_ok_and(|answer| answer.status.success())
        });
        let key = run(&cscli, &["bouncers", "add", "test", "-o", "raw"]);
        CrowdSec {
            _server: server,
            key: key.trim().to_owned(),
        }
    }

    /// What a bouncer is told to ban, sorted: all, or what concerns an address.
    fn decisions(&self, about: Option<&str>) -> Vec<String> {
        let question = about.map_or(String::new(), |ip| format!("?ip={ip}"));
        let url = format!("http://{ADDRESS}/v1/decisions{question}");
        let key = format!("X-Api-Key: {}", self.key);
        let text = run("curl", &["-fs", "-H", &key, &url]);
        let all: Option<Vec<Value>> = serde_json::from_str(&text).unwrap();
        let mut decisions: Vec<String> = all
            .unwrap_or_default()
            .iter()
            .map(|decision| {
                assert_eq!(decision["type"], "ban", "{decision}");
                // It ends when the service would drop the address: within the week.
                let duration = decision["duration"].as_str().unwrap();
                let hours: u32 = duration.split_once('h').unwrap().0.parse().unwrap();
                assert!(hours < 7 * 24, "{duration}");
                decision["value"].as_str().unwrap().to_owned()
            })
            .collect();
        decisions.sort();
        decisions
    }
}

#[test]
fn its_bouncers_are_told_the_list_and_nothing_twice() {
    in_namespace(|| {
        let examples = Examples::with(&LISTED);
        let crowdsec = CrowdSec::start(&examples);
        let note = examples.file("note").display().to_string();
        examples.run("crowdsec", &[&note]).ok();
        let all = ["192.0.2.7", "198.51.100.0/24", "2001:db8::7", "203.0.113.5"];
        assert_eq!(crowdsec.decisions(None), all);
        assert_eq!(
            crowdsec.decisions(Some("198.51.100.77")),
            ["198.51.100.0/24"]
        );
        assert!(crowdsec.decisions(Some("192.0.2.8")).is_empty());
        examples.run("crowdsec", &[&note]).ok();
        assert_eq!(crowdsec.decisions(None), all, "none is there twice");

        examples.program.hold(&LISTED[..1]);
        examples.run("crowdsec", &[&note]).ok();
        assert_eq!(crowdsec.decisions(None), ["192.0.2.7"]);
        // A list that is suspiciously short changes nothing.
        examples.program.hold::<&str>(&[]);
        assert_eq!(examples.run("crowdsec", &[&note]).code, 3);
        assert_eq!(crowdsec.decisions(None), ["192.0.2.7"]);
    });
}
