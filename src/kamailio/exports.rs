//! Everything that Kamailio may call: script functions, parameters, RPC commands, KEMI functions.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::bindings as k;
use super::guard::{guard, install_hook};
use super::tables::leak_table;
use super::{fixups, lifecycle, log, params, rpc, script, text, variables};
use crate::error;
use crate::script::{Action, Argument, Function, FUNCTIONS};

/// The structure that the core looks up by this name. It is filled in `mod_register`, which the core
/// calls before it reads it.
#[no_mangle]
#[allow(non_upper_case_globals, reason = "the name that Kamailio looks up")]
pub static exports: Exports = Exports(UnsafeCell::new(k::module_exports_t {
    name: c"apiban".as_ptr(),
    dlflags: 0,
    cmds: ptr::null_mut(),
    params: ptr::null_mut(),
    rpc_methods: ptr::null_mut(),
    pv_items: ptr::null_mut(),
    response_f: None,
    init_mod_f: Some(lifecycle::mod_init),
    init_child_f: Some(lifecycle::child_init),
    destroy_mod_f: Some(lifecycle::destroy),
}));

/// The cell of [`exports`].
#[repr(transparent)]
pub struct Exports(UnsafeCell<k::module_exports_t>);

// SAFETY: written once, in `mod_register`, while there is one process with one thread; read by the core.
unsafe impl Sync for Exports {}

/// Called by the core right after loading.
///
/// # Safety
/// Only the core calls it.
#[no_mangle]
pub unsafe extern "C" fn mod_register(
    _: *mut c_char,
    _: *mut c_int,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    log::install();
    install_hook();
    guard(-1, "mod_register", || {
        // SAFETY: see `Exports`; the tables are never freed.
        unsafe {
            let table = &mut *exports.0.get();
            table.cmds = functions();
            table.params = params::table();
            table.rpc_methods = rpc::table();
            table.pv_items = variables::table();
        }
        // SAFETY: the table is never freed.
        if unsafe { k::sr_kemi_modules_add(kemi_functions()) } != 0 {
            error!("cannot register the KEMI functions");
            return -1;
        }
        0
    })
}

type ScriptFunction = unsafe extern "C" fn(*mut k::sip_msg_t, *mut c_void, *mut c_void) -> c_int;
type ScriptFunction3 =
    unsafe extern "C" fn(*mut k::sip_msg_t, *mut c_void, *mut c_void, *mut c_void) -> c_int;
type Fixup = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;

/// One row for each number of arguments: the core tells functions of the same name apart by it.
fn functions() -> *mut k::cmd_export_t {
    leak_table(FUNCTIONS.iter().flat_map(|function| {
        let handlers = native(function.action).into_iter();
        handlers
            .zip(0..)
            .map(|(handler, arguments)| native_row(function, handler, arguments))
    }))
}

/// What the native script calls, from no argument to all.
fn native(action: Action) -> Vec<ScriptFunction> {
    match action {
        Action::Check => vec![script::check_source, script::check_address],
        Action::Block => vec![
            script::block_source,
            script::block_address,
            script::block_for,
            of_three(script::block_because),
        ],
        Action::Unblock => vec![script::unblock_source, script::unblock_address],
    }
}

fn of_three(function: ScriptFunction3) -> ScriptFunction {
    // SAFETY: the core keeps one type for all functions and casts it back by the number of parameters.
    unsafe { std::mem::transmute::<ScriptFunction3, ScriptFunction>(function) }
}

fn native_row(function: &Function, handler: ScriptFunction, arguments: c_int) -> k::cmd_export_t {
    let fixup: Fixup = match function.action {
        Action::Check => fixups::fix_check,
        Action::Block => fixups::fix_block,
        Action::Unblock => fixups::fix_unblock,
    };
    let fixed = arguments > 0;
    k::cmd_export_t {
        name: text::leak(function.name),
        function: Some(handler),
        param_no: arguments,
        fixup: fixed.then_some(fixup),
        free_fixup: fixed.then_some(k::fixup_free_spve_all as Fixup),
        flags: k::ANY_ROUTE,
    }
}

fn kemi_functions() -> *mut k::sr_kemi_t {
    leak_table(FUNCTIONS.iter().flat_map(|function| {
        let handlers = kemi(function.action).into_iter();
        handlers
            .zip(function.kemi)
            .enumerate()
            .map(|(count, (handler, name))| kemi_row(name, handler, &function.arguments[..count]))
    }))
}

/// What KEMI calls, from no argument to all.
fn kemi(action: Action) -> Vec<*mut c_void> {
    match action {
        Action::Check => vec![
            script::kemi_check as *mut c_void,
            script::kemi_check_ip as *mut c_void,
        ],
        Action::Block => vec![
            script::kemi_block as *mut c_void,
            script::kemi_block_ip as *mut c_void,
            script::kemi_block_ip_ttl as *mut c_void,
            script::kemi_block_ip_reason as *mut c_void,
        ],
        Action::Unblock => vec![
            script::kemi_unblock as *mut c_void,
            script::kemi_unblock_ip as *mut c_void,
        ],
    }
}

fn kemi_row(name: &str, handler: *mut c_void, arguments: &[Argument]) -> k::sr_kemi_t {
    let mut types = [k::SR_KEMIP_NONE; 6];
    for (kind, argument) in types.iter_mut().zip(arguments) {
        *kind = match argument {
            Argument::Ip | Argument::Reason => k::SR_KEMIP_STR,
            Argument::Ttl => k::SR_KEMIP_INT,
        };
    }
    k::sr_kemi_t {
        mname: text::leak_str("apiban"),
        fname: text::leak_str(name),
        rtype: k::SR_KEMIP_INT,
        func: handler,
        ptypes: types,
    }
}
