//! The process that runs `event_route[apiban:...]`.
//!
//! It is forked only if the script has such a route. A route may take long, and neither a SIP worker nor
//! the updater may wait for it. Its rank lets the other modules initialise themselves in it, so that their
//! functions work there.

use std::ffi::c_int;
use std::time::Duration;

use super::bindings as k;
use super::child::{Child, Work, LONGEST_SLEEP};
use super::guard::guard;
use super::module::Module;
use super::{text, variables};
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
