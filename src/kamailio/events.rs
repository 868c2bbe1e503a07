//! The process that runs `event_route[apiban:...]`.
//!
//! It is forked only if the script has such a route. A route may take long, and neither a SIP worker nor
//! the updater may wait for it. Its rank lets the other modules initialise themselves in it: their functions
//! work there.

use std::ffi::c_int;
use std::time::Duration;

use super::bindings as k;
use super::child::{Child, Work, LONGEST_SLEEP};
use super::guard::guard;
use super::module::Module;
use super::{text, variables};
use crate::quote::foreign;
use crate::shared::events::{Event, EventKind};

/// A signal may come at any place of a route, so there is no orderly end. A route may send over TCP and TLS.
pub const CHILD: Child = Child {
    rank: k::PROC_RPC,
    name: c"APIBAN events",
    make_sock: true,
    wanted: |module| !module.event_kinds.is_empty(),
    wakeup: |module| &module.wakeups.events,
    orderly_end: false,
    life: |module| Box::new(Events(module)),
};

/// The kinds of event for which the script has a route. The script is complete in `mod_init`.
pub fn wanted() -> Vec<EventKind> {
    EventKind::ALL
        .into_iter()
        .filter(|kind| route(*kind).is_some())
        .collect()
}

/// Refuses a script with `event_route[apiban:NAME]` of a NAME that never comes.
///
/// # Errors
/// The route, and those that there are.
pub fn check_names() -> Result<(), String> {
    let known = EventKind::ALL.map(EventKind::route);
    for name in names() {
        if name.starts_with("apiban:") && !known.contains(&name.as_str()) {
            let name = foreign(&name, 64);
            let known = known.join(", ");
            return Err(format!("event_route[{name}] never runs; accepted: {known}"));
        }
    }
    Ok(())
}

/// The names of all event routes of the script.
fn names() -> Vec<String> {
    let mut found = Vec::new();
    // SAFETY: the table is the core's own, complete since the script was read. Each of its rows is a ring
    // that ends where it begins.
    unsafe {
        let table = (&raw const k::event_rt).read().names;
        for row in 0..usize::try_from(table.size).unwrap_or(0) {
            let row: *mut k::str_hash_entry = table.table.add(row).cast();
            let mut entry = (*row).next;
            while entry != row && !entry.is_null() {
                found.push(String::from_utf8_lossy(text::bytes(&(*entry).key)).into_owned());
                entry = (*entry).next;
            }
        }
    }
    found
}

/// The first action of a route; `None` if the script has no such route.
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

struct Events(&'static Module);

impl Work for Events {
    fn turn(&mut self) -> Duration {
        while let Some(event) = self.0.shared.events.take() {
            guard((), "an event route", || run_route(event));
        }
        LONGEST_SLEEP
    }

    fn end(&mut self) {}
}

fn run_route(event: Event) {
    let Some(first) = route(event.kind) else {
        return;
    };
    variables::set_event(Some(event));
    // SAFETY: the context is zeroed as the core's own initialiser does, the message is the core's faked
    // one; leaving the script early comes back to run_top_route and skips no frame of ours.
    unsafe {
        let message = k::faked_msg_get_next();
        if k::exec_pre_script_cb(message, k::REQUEST_CB_TYPE) != 0 {
            let mut context: k::run_act_ctx_t = std::mem::zeroed();
            let before = k::route_type;
            k::route_type = k::EVENT_ROUTE as c_int;
            k::run_top_route(first, message, &mut context);
            k::route_type = before;
            k::exec_post_script_cb(message, k::REQUEST_CB_TYPE);
        }
        // What a SIP worker frees after each message.
        k::ksr_msg_env_reset();
    }
    variables::set_event(None);
}
