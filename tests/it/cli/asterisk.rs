//! `examples/clients/asterisk` with a real Asterisk: whom it turns away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use apiban_testing::kamailio::Release;
use apiban_testing::ports::Port;
use apiban_testing::sip::{Answer, Sip};
use apiban_testing::wait::{wait_until, SOON};

use super::clients::{Examples, Running};

/// Where `tests/run` unpacks it in the root of sid, the only Debian that has it.
const TREE: &str = "/opt/asterisk/usr";
const MODULES: [&str; 7] = [
    "res_sorcery_config",
    "res_sorcery_memory",
    "res_sorcery_astdb",
    "res_pjproject",
    "res_pjsip",
    "res_pjsip_endpoint_identifier_anonymous",
    "res_pjsip_acl",
];

/// An Asterisk that answers whoever its ACL lets in; it ends with the test.
struct Asterisk {
    // Ends before its files go.
    server: Option<Running>,
    release: Release,
    dir: tempfile::TempDir,
    port: Port,
}

impl Asterisk {
    /// Its files, and the command of that name for the examples.
    fn prepare(examples: &Examples) -> Asterisk {
        let release = Release::roots()
            .into_iter()
            .find(|release| release.name() == "sid")
            .expect("a root of Debian sid: tests/run makes it");
        let root = release.temp_dir().parent().map(Path::to_owned).unwrap();
        let there = root.join(&TREE[1..]).join("sbin/asterisk").exists();
        assert!(there, "{TREE} is missing in that root: tests/run makes it");
        let asterisk = Asterisk {
            dir: tempfile::tempdir_in(release.temp_dir()).unwrap(),
            release,
            port: Port::reserve(),
            server: None,
        };
        let inside = asterisk.release.inside(asterisk.dir.path());
        let (inside, library) = (inside.display(), asterisk.library());
        asterisk.file(
            "asterisk.conf",
            &format!(
                "[directories]\nastetcdir => {inside}\nastvarlibdir => {inside}\nastdbdir => {inside}\n\
                 astkeydir => {inside}\nastagidir => {inside}\nastspooldir => {inside}\nastrundir => {inside}\n\
                 astlogdir => {inside}\nastdatadir => {TREE}/share/asterisk\nastmoddir => {library}/asterisk/modules\n"
            ),
        );
        let modules = MODULES.map(|name| format!("load={name}.so\n")).concat();
        asterisk.file(
            "modules.conf",
            &format!("[modules]\nautoload=no\n{modules}"),
        );
        let log = "[logfiles]\nlog => notice,warning,error\n";
        asterisk.file("logger.conf", log);
        // The lines of the example's head.
        asterisk.file("acl.conf", "#tryinclude apiban.conf\n");
        let port = asterisk.port.number();
        asterisk.file(
            "pjsip.conf",
            &format!(
                "[udp]\ntype = transport\nprotocol = udp\nbind = 127.0.0.1:{port}\n\
                 [anonymous]\ntype = endpoint\ncontext = default\n\
                 [apiban]\ntype = acl\nacl = apiban\n"
            ),
        );
        let words: Vec<String> = std::iter::once(asterisk.command().get_program())
            .chain(asterisk.command().get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let real = "PATH=/usr/sbin:/usr/bin:/sbin:/bin exec";
        examples.command("asterisk", &format!("{real} {} \"$@\"", words.join(" ")));
        asterisk
    }

    fn file(&self, name: &str, content: &str) {
        fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// The file that the example keeps.
    fn list(&self) -> PathBuf {
        self.dir.path().join("apiban.conf")
    }

    fn library(&self) -> String {
        let machine = std::env::consts::ARCH;
        format!("{TREE}/lib/{machine}-linux-gnu")
    }

    /// The program itself, with the configuration of this one.
    fn command(&self) -> Command {
        let mut command = self.release.command("env");
        let config = self.release.inside(&self.dir.path().join("asterisk.conf"));
        command
            .arg(format!("LD_LIBRARY_PATH={}", self.library()))
            .arg(format!("{TREE}/sbin/asterisk"))
            .arg("-C")
            .arg(config);
        command
    }

    fn start(&mut self) {
        let said = fs::File::create(self.dir.path().join("said")).unwrap();
        let server = self
            .command()
            .arg("-f")
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .expect("chroot");
        self.server = Some(Running(server));
        wait_until("Asterisk is up", SOON, || {
            let mut asked = self.command();
            asked.args(["-rx", "core waitfullybooted"]);
            asked.output().is_ok_and(|answer| answer.status.success())
        });
    }

    /// What it says to a request from there.
    fn says(&self, source: &str, method: &str) -> Answer {
        let to = ([127, 0, 0, 1], self.port.number()).into();
        let mut sip = Sip::udp(source, to).expect("a socket");
        sip.request(method).expect("a request")
    }

    fn wait_says(&self, source: &str, answer: Answer) {
        wait_until(&format!("{answer:?} for {source}"), SOON, || {
            self.says(source, "OPTIONS") == answer
        });
    }
}

const REFUSED: Answer = Answer::Status(403);
const ANSWERED: Answer = Answer::Status(200);

#[test]
fn it_refuses_the_list_and_follows_it() {
    let examples = Examples::with(&["127.0.0.77", "127.0.88.0/24", "2001:db8::7"]);
    let mut asterisk = Asterisk::prepare(&examples);
    let list = asterisk.list();
    let argument = [list.to_str().unwrap()];
    // Before the first list the name of the ACL stands for nothing.
    asterisk.start();
    assert_eq!(asterisk.says("127.0.0.78", "OPTIONS"), REFUSED);

    examples.run("asterisk", &argument).ok();
    asterisk.wait_says("127.0.0.78", ANSWERED);
    for listed in ["127.0.0.77", "127.0.88.9"] {
        for method in ["OPTIONS", "REGISTER", "INVITE"] {
            assert_eq!(asterisk.says(listed, method), REFUSED, "{method} {listed}");
        }
    }
    // One is gone and another is new.
    examples.program.hold(&["127.0.88.0/24", "127.0.0.79"]);
    examples.run("asterisk", &argument).ok();
    asterisk.wait_says("127.0.0.79", REFUSED);
    assert_eq!(asterisk.says("127.0.0.77", "OPTIONS"), ANSWERED);
    assert_eq!(asterisk.says("127.0.88.9", "OPTIONS"), REFUSED);
    // A list that is suspiciously short changes nothing.
    examples.program.hold::<&str>(&[]);
    assert_eq!(examples.run("asterisk", &argument).code, 3);
    assert_eq!(asterisk.says("127.0.0.79", "OPTIONS"), REFUSED);
    // While it is down the list goes on, and its next start reads it.
    asterisk.server = None;
    examples.program.hold(&["127.0.0.80"]);
    assert_ne!(examples.run("asterisk", &argument).code, 0);
    asterisk.start();
    assert_eq!(asterisk.says("127.0.0.80", "OPTIONS"), REFUSED);
    assert_eq!(asterisk.says("127.0.0.79", "OPTIONS"), ANSWERED);
    // Nothing is new, and the run that failed is made up for.
    examples.run("asterisk", &argument).ok();
    assert_eq!(asterisk.says("127.0.0.80", "OPTIONS"), REFUSED);
}
