//! What other modules know: the nodes configured for the dmq module, destinations of the dispatcher.
//!
//! The dispatcher is asked by the command that it offers operators: unlike its structures, the names in
//! the reply are the same in every release.

use std::ffi::{c_char, c_int, c_void, CStr};

use super::bindings as k;
use super::text;

extern "C" {
    fn apiban_collect_add(context: *mut c_void, fmt: *const c_char, ...) -> c_int;
    fn apiban_collect_struct_add(handle: *mut c_void, fmt: *const c_char, ...) -> c_int;
    fn apiban_collect_scan(context: *mut c_void, fmt: *const c_char, ...) -> c_int;
    fn apiban_collect_fault(context: *mut c_void, code: c_int, fmt: *const c_char, ...);
    fn apiban_collect_ignore_printf(context: *mut c_void, fmt: *const c_char, ...) -> c_int;
    fn apiban_collect_ignore_struct_printf(
        handle: *mut c_void,
        name: *const c_char,
        fmt: *const c_char,
        ...
    ) -> c_int;
}

/// What stands under some names in a reply, in its order.
struct Collector {
    wanted: &'static [&'static CStr],
    found: Vec<(&'static CStr, String)>,
}

impl Collector {
    /// Keeps a value if its name is wanted.
    ///
    /// # Safety
    /// `name` must be NULL or NUL-terminated.
    unsafe fn take(&mut self, name: *const c_char, value: String) {
        if name.is_null() {
            return;
        }
        // SAFETY: the caller's.
        let name = unsafe { CStr::from_ptr(name) };
        let wanted = self.wanted.iter().find(|wanted| **wanted == name);
        self.found.extend(wanted.map(|wanted| (*wanted, value)));
    }
}

/// A node as the dmq module lists it.
pub struct DmqNode {
    /// Its URI, with a numeric address.
    pub uri: String,
    /// True for this server.
    pub is_local: bool,
}

/// The nodes that the dmq module lists, with names as the module resolved them. Anybody who reaches its port can
/// add to that list, so it proves nothing about a node.
pub fn dmq_nodes() -> Vec<DmqNode> {
    const NAMES: &[&CStr] = &[c"host", c"port", c"proto", c"resolved_ip", c"local"];
    let found = ask(c"dmq.list_nodes", NAMES);
    // Each node begins with its host.
    let rows = found.chunk_by(|_, next| next.0 != c"host");
    rows.filter_map(|row| {
        let field = |name: &CStr| {
            row.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.as_str())
        };
        let ip: std::net::IpAddr = field(c"resolved_ip")?
            .trim_matches(['[', ']'])
            .parse()
            .ok()?;
        let host = match ip.to_canonical() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let port = field(c"port")
            .filter(|port| !port.is_empty() && *port != "0")
            .unwrap_or("5060");
        let transport = match field(c"proto")
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "tcp" => ";transport=tcp",
            "tls" => ";transport=tls",
            "sctp" => ";transport=sctp",
            _ => "",
        };
        Some(DmqNode {
            uri: format!("sip:{host}:{port}{transport}"),
            is_local: field(c"local") == Some("1"),
        })
    })
    .collect()
}

/// The URIs of all destinations of the dispatcher; empty without that module.
pub fn dispatcher_uris() -> Vec<String> {
    let found = ask(c"dispatcher.list", &[c"URI"]);
    found.into_iter().map(|(_, uri)| uri).collect()
}

/// Longest list of nodes that is read.
const MAX_DMQ_NODES: usize = 1_024;

/// The URIs that the operator configured for the dmq module: `server_address` and each
/// `notification_address`. `Some(empty)` if the module is not loaded, `None` if it is loaded and does not
/// export its parameters under the names known.
///
/// The node list of the module is not used: anybody who reaches its port can add any address to that list.
pub fn dmq_configured_uris() -> Option<Vec<String>> {
    // SAFETY: the list of modules and the handles in it are valid after the start; the name ends in NUL.
    let Some(dmq) = (unsafe { k::find_module_by_name(c"dmq".as_ptr()).as_ref() }) else {
        return Some(Vec::new());
    };
    // SAFETY: as above. The variables have the types given in `dmq.h` in every release (`tests/abi`). They
    // are written in the main process while it reads the configuration, before this process is forked,
    // and never afterwards, so nobody changes what is read here.
    unsafe {
        let server: *const k::str_ = symbol(dmq.handle, c"dmq_server_address")?.cast();
        let nodes: *const *const k::str_list_t =
            symbol(dmq.handle, c"dmq_notification_address_list")?.cast();
        let mut uris = vec![text_of(&*server)];
        let mut next = (*nodes).as_ref();
        while let Some(node) = next.filter(|_| uris.len() < MAX_DMQ_NODES) {
            uris.push(text_of(&node.s));
            next = node.next.as_ref();
        }
        Some(uris)
    }
}

/// The address of a variable that a loaded module exports.
///
/// # Safety
/// `handle` must be the handle of a loaded module.
unsafe fn symbol(handle: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: promised by the caller; the name ends in NUL.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// A copy of a text of the core.
///
/// # Safety
/// The text must be valid during the call.
unsafe fn text_of(value: &k::str_) -> String {
    // SAFETY: promised by the caller.
    String::from_utf8_lossy(unsafe { text::bytes(value) }).into_owned()
}

/// Runs a command of another module; returns what stands under `names` in its reply.
fn ask(command: &CStr, names: &'static [&'static CStr]) -> Vec<(&'static CStr, String)> {
    let mut collector = Collector {
        wanted: names,
        found: Vec::new(),
    };
    let mut transport = k::rpc_t {
        fault: Some(apiban_collect_fault),
        send: Some(ignore_send),
        add: Some(apiban_collect_add),
        scan: Some(apiban_collect_scan),
        rpl_printf: Some(apiban_collect_ignore_printf),
        struct_add: Some(apiban_collect_struct_add),
        array_add: Some(apiban_collect_add),
        struct_scan: Some(apiban_collect_scan),
        struct_printf: Some(apiban_collect_ignore_struct_printf),
        capabilities: Some(no_capabilities),
        delayed_ctx_new: None,
        delayed_ctx_close: None,
    };
    // SAFETY: the row is the core's own; handlers may run in any process and use the transport only
    // during the call. The collector is reached through the context alone, from this thread.
    unsafe {
        let row = k::find_rpc_export(command.as_ptr(), 0);
        if let Some(handler) = row.as_ref().and_then(|row| row.function) {
            handler(&mut transport, (&raw mut collector).cast());
        }
    }
    collector.found
}

unsafe extern "C" fn ignore_send(_: *mut c_void) -> c_int {
    0
}

unsafe extern "C" fn no_capabilities(_: *mut c_void) -> u32 {
    0
}

/// Called by `collect.c` for each text in a reply.
#[no_mangle]
unsafe extern "C" fn apiban_collect_text(
    collector: *mut c_void,
    name: *const c_char,
    value: *const c_char,
    len: c_int,
) {
    super::guard::guard((), "asking another module", || {
        // SAFETY: the collector is the context of `ask`; name and text are valid during the call.
        unsafe {
            let Some(collector) = collector.cast::<Collector>().as_mut() else {
                return;
            };
            let value = k::str_ {
                s: value.cast_mut(),
                len,
            };
            collector.take(name, text_of(&value));
        }
    });
}

/// Called by `collect.c` for each number in a reply.
#[no_mangle]
unsafe extern "C" fn apiban_collect_number(
    collector: *mut c_void,
    name: *const c_char,
    number: c_int,
) {
    super::guard::guard((), "asking another module", || {
        // SAFETY: the collector is the context of `ask`; the name is valid during the call.
        unsafe {
            if let Some(collector) = collector.cast::<Collector>().as_mut() {
                collector.take(name, number.to_string());
            }
        }
    });
}
