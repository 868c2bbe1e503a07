//! What other modules know: nodes of the DMQ bus, destinations of the dispatcher.
//!
//! Asked by the commands that these modules offer operators: unlike their structures, the names in the
//! replies are the same in every release.

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

/// The texts of one name in a reply.
struct Collector {
    wanted: &'static CStr,
    found: Vec<String>,
}

/// The URIs of all destinations of the dispatcher; empty without that module.
pub fn dispatcher_uris() -> Vec<String> {
    ask(c"dispatcher.list", c"URI")
}

/// The addresses of all nodes of the DMQ bus; empty without that module.
pub fn dmq_addresses() -> Vec<String> {
    ask(c"dmq.list_nodes", c"resolved_ip")
}

/// Runs a command of another module; returns the texts that stand under `name` in its reply.
fn ask(command: &CStr, name: &'static CStr) -> Vec<String> {
    let mut collector = Collector {
        wanted: name,
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
            if name.is_null() || CStr::from_ptr(name) != collector.wanted {
                return;
            }
            let value = k::str_ {
                s: value.cast_mut(),
                len,
            };
            collector
                .found
                .push(String::from_utf8_lossy(text::bytes(&value)).into_owned());
        }
    });
}
