//! The process that runs `event_route[apiban:...]`, and the variables that these routes read.
//!
//! A process of its own, forked only where the script has such a route: a route may do what takes long,
//! and neither a SIP worker nor the updater may wait for it. Its rank lets the other modules initialise
//! themselves in it, so that their functions work there.

use std::cell::RefCell;
use std::ffi::c_int;
use std::os::fd::AsFd;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::bindings as k;
use super::guard::guard;
use super::lifecycle::Module;
use super::{process, text};
use crate::shared::events::{Event, EventKind};
use crate::warning;

thread_local! {
    /// The event whose route runs in this process.
    static CURRENT: RefCell<Option<Event>> = const { RefCell::new(None) };
}

/// How often the process looks whether the main process is still there, in milliseconds.
const LONGEST_SLEEP: u16 = 1000;

/// The names in `$apiban(name)`, by number.
const NAMES: [&str; 4] = ["ip", "source", "reason", "count"];

/// The event_kinds for which the script has a route. The script is complete in `mod_init`.
pub fn wanted() -> Vec<EventKind> {
    EventKind::ALL
        .into_iter()
        .filter(|kind| route(*kind).is_some())
        .collect()
}

/// The first action of a route; `None` where the script has none.
fn route(kind: EventKind) -> Option<*mut k::action> {
    let name = text::to_c(kind.route());
    // SAFETY: the list is the core's own, complete since the script was read; the index is checked.
    unsafe {
        let routes = &raw mut k::event_rt;
        let index = k::route_lookup(routes, name.as_ptr());
        if index < 0 || index >= (*routes).entries {
            return None;
        }
        let first = *(*routes).rlist.offset(index as isize);
        (!first.is_null()).then_some(first)
    }
}

/// Forks the process; in the parent 0, or below 0 where it cannot be forked.
pub fn fork(module: &'static Module) -> c_int {
    process::fork(k::PROC_RPC, c"APIBAN events", || run(module))
}

fn run(module: &'static Module) {
    // A script may be anywhere when the end comes: nothing here needs an orderly one.
    process::end_at_once_on_signals();
    loop {
        process::follow_log_level();
        if process::main_is_gone() {
            process::exit();
        }
        while let Some(event) = module.shared.events.take() {
            guard((), "an event route", || run_route(event));
        }
        let mut wait = [PollFd::new(
            module.event_wakeup().as_fd(),
            PollFlags::POLLIN,
        )];
        if poll(&mut wait, PollTimeout::from(LONGEST_SLEEP)).is_ok_and(|ready| ready > 0) {
            let _ = module.event_wakeup().read();
        }
    }
}

fn run_route(event: Event) {
    let Some(first) = route(event.kind) else {
        return;
    };
    CURRENT.set(Some(event));
    // SAFETY: the context is zeroed as the core's own initialiser does, the message is the core's faked
    // one; leaving the script early comes back to run_top_route and skips no frame of ours.
    unsafe {
        let message = k::faked_msg_get_next();
        let mut context: k::run_act_ctx_t = std::mem::zeroed();
        let before = k::route_type;
        k::route_type = k::EVENT_ROUTE as c_int;
        k::run_top_route(first, message, &mut context);
        k::route_type = before;
        k::reset_avps();
    }
    CURRENT.set(None);
}

/// Hands an event to the process.
pub fn raise(module: &Module, event: &Event) {
    static LOST: std::sync::Once = std::sync::Once::new();
    if !module.shared.events.put(event) {
        LOST.call_once(|| warning!("event routes are too slow: events are lost"));
        return;
    }
    let _ = module.event_wakeup().write(1);
}

/// The table of pseudo-variables for the core: `$apiban(name)`.
pub fn variables() -> Vec<k::pv_export_t> {
    let row = |name: &str, active: bool| k::pv_export_t {
        name: if active {
            text::leak_str(name)
        } else {
            k::str_ {
                s: std::ptr::null_mut(),
                len: 0,
            }
        },
        type_: if active { k::PVT_OTHER } else { 0 },
        getf: active.then_some(get as unsafe extern "C" fn(_, _, _) -> _),
        setf: None,
        parse_name: active.then_some(parse_name as unsafe extern "C" fn(_, _) -> _),
        parse_index: None,
        init_param: None,
        iparam: 0,
    };
    vec![row("apiban", true), row("", false)]
}

/// Accepts the names of the contract; below zero ends the start of Kamailio.
unsafe extern "C" fn parse_name(spec: *mut k::pv_spec_t, name: *mut k::str_) -> c_int {
    guard(-1, "$apiban", || {
        // SAFETY: both come from the core and are valid during the call.
        let (spec, name) = unsafe { (spec.as_mut(), name.as_ref().map(|name| text::bytes(name))) };
        let index = NAMES
            .iter()
            .position(|known| Some(known.as_bytes()) == name);
        match (spec, index) {
            (Some(spec), Some(index)) => {
                // A type that leaves the value to us: the index, in place of a pointer.
                spec.pvp.pvn.type_ = k::PV_NAME_OTHER;
                spec.pvp.pvn.u.dname = index as *mut std::ffi::c_void;
                0
            }
            _ => {
                let shown = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                crate::error!("$apiban({shown}): unknown; there are {}", NAMES.join(", "));
                -1
            }
        }
    })
}

/// The value in the route that runs, `$null` outside of one.
unsafe extern "C" fn get(
    msg: *mut k::sip_msg_t,
    param: *mut k::pv_param_t,
    result: *mut k::pv_value_t,
) -> c_int {
    guard(-1, "$apiban", || {
        // SAFETY: the name was set by `parse_name`; results are filled by the core's own functions. The
        // texts live in `CURRENT` until the route has ended, which covers their use.
        unsafe {
            let Some(index) = param.as_ref().map(|param| param.pvn.u.dname as usize) else {
                return -1;
            };
            CURRENT.with_borrow(|event| {
                let Some(event) = event else {
                    return k::pv_get_null(msg, param, result);
                };
                let value = match index {
                    0 => &event.ip,
                    1 => &event.source,
                    2 => &event.reason,
                    _ => return k::pv_get_uintval(msg, param, result, u64::from(event.count)),
                };
                let mut value = k::str_ {
                    s: value.as_ptr().cast_mut().cast(),
                    len: value.len() as c_int,
                };
                k::pv_get_strval(msg, param, result, &mut value)
            })
        }
    })
}
