//! The configuration of a test's Kamailio.

use super::process::{Failure, Kamailio};
use super::release::{is_aarch64, Release};
use crate::ports::{has_ipv6, Port};
use crate::tls::Certificate;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What a test asks it by (ctl, jsonrpcs, statistics of kex), and what answers requests.
const CONTROL: &[&str] = &["ctl", "jsonrpcs", "kex", "sl"];
/// Modules that a script needs if it has one of these words. No others are loaded: our module must not
/// lean on one that happens to be there.
const NEEDED: &[(&str, &[&str])] = &[
    ("pv", &["$"]),
    (
        "tm",
        &[
            "t_relay(",
            "t_reply(",
            "t_on_",
            "route[tm:",
            "\"tm\"",
            "dmq.so",
            "tmx.so",
            "uac.so",
        ],
    ),
    ("xlog", &["xlog(", "xdbg("]),
    ("textops", &["is_method(", "search("]),
];
/// Variables of the core, without the dollar.
const CORE_VARIABLES: &[&str] = &["rc", "def", "apiban("];

/// Value of a module parameter.
#[derive(Clone, Debug)]
pub enum Value {
    /// Written without quotes.
    Int(i64),
    /// Written in quotes.
    Text(String),
}

impl From<i32> for Value {
    fn from(value: i32) -> Value {
        Value::Int(value.into())
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.into())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

impl Value {
    fn text(&self) -> String {
        match self {
            Value::Int(value) => value.to_string(),
            Value::Text(value) => format!("\"{value}\""),
        }
    }
}

/// What a test wants of its Kamailio. In every text `@DIR@` stands for its directory (as Kamailio
/// sees it) and `@PORT@` for its SIP port.
#[derive(Clone)]
pub struct Builder {
    pub(super) release: Release,
    pub(super) module: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) privileges: Vec<String>,
    pub(super) children: u32,
    pub(super) tcp: bool,
    pub(super) forks: bool,
    own_sockets: bool,
    pub(super) ipv6: bool,
    pub(super) tls: bool,
    pub(super) address: Ipv4Addr,
    pub(super) files: Vec<(String, Vec<u8>)>,
    pub(super) defines: Vec<String>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    whole: Option<String>,
    debug: i32,
    globals: Vec<String>,
    loads: Vec<String>,
    params: Vec<String>,
    request_route: String,
    engine: Option<String>,
    routes: String,
}

impl Builder {
    pub(super) fn new(module: Option<PathBuf>) -> Builder {
        Builder {
            release: Release::Host,
            module,
            user: None,
            privileges: Vec::new(),
            children: 2,
            tcp: true,
            forks: true,
            own_sockets: true,
            ipv6: false,
            tls: false,
            address: Ipv4Addr::LOCALHOST,
            files: Vec::new(),
            defines: Vec::new(),
            arguments: vec!["-m".into(), "64".into(), "-M".into(), "8".into()],
            environment: Vec::new(),
            whole: None,
            debug: 2,
            globals: Vec::new(),
            loads: Vec::new(),
            params: Vec::new(),
            request_route: String::new(),
            engine: None,
            routes: String::new(),
        }
    }

    /// Runs this release instead of the host's.
    pub fn release(mut self, release: &Release) -> Builder {
        self.release = release.clone();
        self
    }

    /// `modparam("apiban", name, value)`. What a test does not set keeps its default, but for
    /// `state_file`, which is `@DIR@/apiban.state`.
    pub fn param(self, name: &str, value: impl Into<Value>) -> Builder {
        self.modparam("apiban", name, value)
    }

    /// `modparam` of any module.
    pub fn modparam(mut self, module: &str, name: &str, value: impl Into<Value>) -> Builder {
        let value = value.into().text();
        self.params
            .push(format!("modparam(\"{module}\", \"{name}\", {value})"));
        self
    }

    /// Loads another stock module, before ours; `name` without `.so`.
    pub fn load(mut self, name: &str) -> Builder {
        self.loads.push(name.into());
        self
    }

    /// Loads the module dmq with this address of its own.
    pub fn dmq(self, server_address: &str) -> Builder {
        let builder = self
            .load("dmq")
            .modparam("dmq", "server_address", server_address);
        if is_aarch64() {
            // Idle workers wait for a lock, which Debian's Kamailio 5.6 and 6.0 spin on there.
            return builder.modparam("dmq", "worker_usleep", 1000);
        }
        builder
    }

    /// A line at the top, such as `received_route_mode=1`.
    pub fn global(mut self, line: &str) -> Builder {
        self.globals.push(line.into());
        self
    }

    /// Statements of `request_route`; after them it answers 200.
    pub fn request_route(mut self, statements: &str) -> Builder {
        self.request_route = statements.into();
        self
    }

    /// `cfgengine`: a KEMI script instead of `request_route`.
    pub fn engine(mut self, name: &str) -> Builder {
        self.engine = Some(name.into());
        self
    }

    /// Text after `request_route`: more routes, event routes.
    pub fn routes(mut self, text: &str) -> Builder {
        self.routes.push_str(text);
        self.routes.push('\n');
        self
    }

    /// The whole configuration instead of a generated one. It is told where to listen and so on by
    /// the defines of `kamailio.cfg.sample`.
    pub fn config(mut self, text: &str) -> Builder {
        self.whole = Some(text.into());
        self
    }

    /// A file in `@DIR@`.
    pub fn file(mut self, name: &str, contents: impl AsRef<[u8]>) -> Builder {
        self.files.push((name.into(), contents.as_ref().into()));
        self
    }

    /// `-A text`, such as `NAME` or `NAME="value"`.
    pub fn define(mut self, text: &str) -> Builder {
        self.defines.push(text.into());
        self
    }

    /// One more command line argument.
    pub fn argument(mut self, text: &str) -> Builder {
        self.arguments.push(text.into());
        self
    }

    /// A variable of Kamailio's environment.
    pub fn environment(mut self, name: &str, value: &str) -> Builder {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Kamailio drops to this user (and their group) after start. Needs root.
    pub fn user(mut self, name: &str) -> Builder {
        self.user = Some(name.into());
        self
    }

    /// Kamailio is started with these options of setpriv, such as `--reuid`: unlike [`Builder::user`]
    /// it never was root. Needs root.
    pub fn setpriv(mut self, options: &[&str]) -> Builder {
        self.privileges = options.iter().map(ToString::to_string).collect();
        self
    }

    /// UDP workers per socket (2).
    pub fn children(mut self, count: u32) -> Builder {
        self.children = count;
        self
    }

    /// Shared and per-process memory in MB (64 and 8).
    pub fn memory(mut self, shared: u32, private: u32) -> Builder {
        self.arguments[1] = shared.to_string();
        self.arguments[3] = private.to_string();
        self
    }

    /// Log level (2, INFO; 3 is DBG).
    pub fn debug(mut self, level: i32) -> Builder {
        self.debug = level;
        self
    }

    /// `-D`: the main process takes the packets of the first UDP socket itself.
    pub fn without_forks(mut self) -> Builder {
        self.forks = false;
        self.without_tcp()
    }

    /// Listens on what the [`Builder::global`] lines say, and nowhere else.
    pub fn only_global_sockets(mut self) -> Builder {
        self.own_sockets = false;
        self
    }

    /// UDP only.
    pub fn without_tcp(mut self) -> Builder {
        self.tcp = false;
        self
    }

    /// Listens on this loopback address instead of 127.0.0.1.
    pub fn address(mut self, address: Ipv4Addr) -> Builder {
        self.address = address;
        self
    }

    /// Listens on `::1` too.
    pub fn ipv6(mut self) -> Builder {
        assert!(has_ipv6(), "this machine has no ::1");
        self.ipv6 = true;
        self
    }

    /// Listens for TLS too, on a port of its own.
    pub fn tls(mut self) -> Builder {
        self.tls = true;
        self
    }

    /// Starts it and waits until it serves; panics with its log if it does not.
    #[track_caller]
    pub fn start(self) -> Kamailio {
        match self.try_start() {
            Ok(kamailio) => kamailio,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// Starts it and waits until it serves.
    pub fn try_start(self) -> Result<Kamailio, Failure> {
        Kamailio::launch(&self)
    }

    /// Its log, if it ends by itself at start as it should; panics if it serves.
    #[track_caller]
    pub fn expect_start_failure(self) -> String {
        match self.try_start() {
            Err(failure) if failure.status.is_some() => failure.log,
            Err(failure) => panic!("neither served nor ended: {failure}"),
            Ok(kamailio) => panic!("it started: {}", kamailio.log()),
        }
    }

    /// `kamailio -c`: what it prints if it likes the configuration, or dislikes it.
    pub fn check(self) -> Result<String, String> {
        Kamailio::check(&self)
    }

    /// Whether it can be asked anything.
    pub(super) fn has_control(&self) -> bool {
        self.whole.as_ref().is_none_or(|text| text.contains("ctl"))
    }

    /// The configuration for a Kamailio in `dir` (as it sees it).
    pub(super) fn text(&self, dir: &Path, module: Option<&Path>, port: u16, tls: u16) -> String {
        let text = match &self.whole {
            Some(text) => text.clone(),
            None => self.generated(module, tls),
        };
        text.replace("@DIR@", &dir.display().to_string())
            .replace("@PORT@", &port.to_string())
            .replace("@TLSPORT@", &tls.to_string())
    }

    /// The modules that the script cannot do without.
    fn needed(&self) -> impl Iterator<Item = &'static str> {
        let mut script = [self.request_route.as_str(), &self.routes].concat();
        script.extend(self.globals.iter().chain(&self.params).map(String::as_str));
        script.extend(self.loads.iter().map(|name| format!("{name}.so")));
        let texts = self.files.iter().map(|(_, text)| std::str::from_utf8(text));
        script.extend(texts.flatten());
        for name in CORE_VARIABLES {
            script = script.replace(&format!("${name}"), "");
        }
        let names = move |word: &&str| script.contains(*word);
        NEEDED
            .iter()
            .filter(move |(_, words)| words.iter().any(&names))
            .map(|(module, _)| *module)
    }

    fn generated(&self, module: Option<&Path>, tls: u16) -> String {
        let mut text = String::from("#!KAMAILIO\n");
        let mut line = |line: &str| {
            let _ = writeln!(text, "{line}");
        };
        line(&format!("debug={}", self.debug));
        line("log_stderror=yes\nauto_aliases=no\ndns=no\nrev_dns=no\nalias=\"localhost\"");
        line(&format!("children={}\ntcp_children=2", self.children));
        line("tcp_connection_lifetime=60");
        let mut hosts = Vec::new();
        if self.own_sockets {
            hosts.push(self.address.to_string());
        }
        if self.ipv6 {
            hosts.push("[::1]".into());
        }
        for host in hosts {
            line(&format!("listen=udp:{host}:@PORT@"));
            if self.tcp {
                line(&format!("listen=tcp:{host}:@PORT@"));
            }
            if self.tls {
                line(&format!("listen=tls:{host}:{tls}"));
            }
        }
        if !self.tcp && !self.tls {
            line("disable_tcp=yes");
        }
        if self.tls {
            line("enable_tls=yes");
        }
        self.globals.iter().for_each(|global| line(global));
        // sl looks for tm at its start.
        for name in self.needed().chain(CONTROL.iter().copied()) {
            line(&format!("loadmodule \"{name}.so\""));
        }
        if self.tls {
            line("loadmodule \"tls.so\"");
            line("modparam(\"tls\", \"tls_method\", \"TLSv1.2+\")");
            line("modparam(\"tls\", \"certificate\", \"@DIR@/tls.pem\")");
            line("modparam(\"tls\", \"private_key\", \"@DIR@/tls.key\")");
        }
        for name in &self.loads {
            line(&format!("loadmodule \"{name}.so\""));
        }
        line("modparam(\"ctl\", \"binrpc\", \"unix:@DIR@/ctl\")");
        line("modparam(\"jsonrpcs\", \"transport\", 4)");
        line("modparam(\"jsonrpcs\", \"dgram_socket\", \"@DIR@/rpc\")");
        if let Some(module) = module {
            line(&format!("loadmodule \"{}\"", module.display()));
            // The default belongs to an installed Kamailio and would be shared by all tests.
            line("modparam(\"apiban\", \"state_file\", \"@DIR@/apiban.state\")");
        }
        self.params.iter().for_each(|param| line(param));
        match &self.engine {
            // Kamailio asks the engine only where there is no native route.
            Some(engine) => line(&format!("cfgengine \"{engine}\"")),
            None => {
                line("request_route {");
                line(&self.request_route);
                line("sl_send_reply(\"200\", \"OK\");\n}");
            }
        }
        line(&self.routes);
        text
    }
}

/// What of a test's directory depends on the ports: kept with the running Kamailio.
pub(super) struct Place {
    pub(super) sip: Port,
    pub(super) tls: Port,
    pub(super) certificate: Option<Certificate>,
}

impl Place {
    pub(super) fn new(builder: &Builder) -> Place {
        Place {
            sip: Port::reserve(),
            tls: Port::reserve(),
            certificate: builder.tls.then(Certificate::generate),
        }
    }
}

/// The module under test: `APIBAN_MODULE`, or the one that cargo built beside this test.
pub fn module_path() -> PathBuf {
    if let Some(path) = std::env::var_os("APIBAN_MODULE") {
        return path.into();
    }
    let test = std::env::current_exe().expect("path of the test");
    // The copy in `deps` is made by every `cargo test`; the one above it by `cargo build` alone, so
    // it may be old.
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("libapiban.so"))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no libapiban.so beside {}", test.display()))
}
