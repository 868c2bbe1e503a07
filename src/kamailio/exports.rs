//! Everything that Kamailio may call: script functions, parameters, RPC commands, KEMI functions.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::bindings as k;
use super::guard::{guard, install_hook};
use super::tables::leak_table;
use super::{fixups, lifecycle, log, params, rpc, script, text, variables};
use crate::error;

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
        // SAFETY: see `Exports`; the tables live for ever.
        unsafe {
            let table = &mut *exports.0.get();
            table.cmds = functions();
            table.params = params::table();
            table.rpc_methods = rpc::table();
            table.pv_items = variables::table();
        }
        // SAFETY: the table lives for ever.
        if unsafe { k::sr_kemi_modules_add(kemi_functions()) } != 0 {
            error!("cannot register the KEMI functions");
            return -1;
        }
        0
    })
}

#[rustfmt::skip]
fn functions() -> *mut k::cmd_export_t {
    leak_table([
        function("apiban_check", 0, script::check_source),
        function("apiban_check", 1, script::check_address),
        function("apiban_block", 0, script::block_source),
        function("apiban_block", 1, script::block_address),
        function("apiban_block", 2, script::block_for),
        function_of_three("apiban_block", script::block_because),
        function("apiban_unblock", 0, script::unblock_source),
        function("apiban_unblock", 1, script::unblock_address),
    ])
}

type ScriptFunction = unsafe extern "C" fn(*mut k::sip_msg_t, *mut c_void, *mut c_void) -> c_int;
type Fixup = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
type ScriptFunction3 =
    unsafe extern "C" fn(*mut k::sip_msg_t, *mut c_void, *mut c_void, *mut c_void) -> c_int;

fn function_of_three(name: &str, three: ScriptFunction3) -> k::cmd_export_t {
    // SAFETY: the core keeps one type for all functions and casts it back by the number of parameters.
    function(name, 3, unsafe {
        std::mem::transmute::<ScriptFunction3, ScriptFunction>(three)
    })
}

fn function(name: &str, parameters: i32, function: ScriptFunction) -> k::cmd_export_t {
    let fixup = match name {
        "apiban_check" => fixups::fix_check,
        "apiban_block" => fixups::fix_block,
        _ => fixups::fix_unblock as Fixup,
    };
    let fixed = parameters > 0;
    k::cmd_export_t {
        name: text::leak(name),
        function: Some(function),
        param_no: parameters,
        fixup: fixed.then_some(fixup),
        free_fixup: fixed.then_some(k::fixup_free_spve_all as Fixup),
        flags: k::ANY_ROUTE,
    }
}

#[rustfmt::skip]
fn kemi_functions() -> *mut k::sr_kemi_t {
    const TEXT: c_int = k::SR_KEMIP_STR;
    const INT: c_int = k::SR_KEMIP_INT;
    leak_table([
        kemi("check",           script::kemi_check           as *mut c_void, &[]),
        kemi("check_ip",        script::kemi_check_ip        as *mut c_void, &[TEXT]),
        kemi("block",           script::kemi_block           as *mut c_void, &[]),
        kemi("block_ip",        script::kemi_block_ip        as *mut c_void, &[TEXT]),
        kemi("block_ip_ttl",    script::kemi_block_ip_ttl    as *mut c_void, &[TEXT, INT]),
        kemi("block_ip_reason", script::kemi_block_ip_reason as *mut c_void, &[TEXT, INT, TEXT]),
        kemi("unblock",         script::kemi_unblock         as *mut c_void, &[]),
        kemi("unblock_ip",      script::kemi_unblock_ip      as *mut c_void, &[TEXT]),
    ])
}

fn kemi(name: &str, function: *mut c_void, parameters: &[c_int]) -> k::sr_kemi_t {
    let mut types = [k::SR_KEMIP_NONE; 6];
    types[..parameters.len()].copy_from_slice(parameters);
    k::sr_kemi_t {
        mname: text::leak_str("apiban"),
        fname: text::leak_str(name),
        rtype: k::SR_KEMIP_INT,
        func: function,
        ptypes: types,
    }
}
