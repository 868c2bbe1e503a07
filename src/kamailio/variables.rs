//! The pseudo-variable `$apiban(name)`, which the event routes of the module read.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};

use super::bindings as k;
use super::guard::guard;
use super::tables::leak_table;
use super::text;
use crate::error;
use crate::script::{Value, VARIABLES};
use crate::shared::events::Event;

thread_local! {
    /// The event whose route runs in this process.
    static CURRENT: RefCell<Option<Event>> = const { RefCell::new(None) };
}

/// Sets the event that the variable shows from now on in this process.
pub fn set_event(event: Option<Event>) {
    CURRENT.set(event);
}

/// The table of pseudo-variables for the core.
pub fn table() -> *mut k::pv_export_t {
    leak_table([k::pv_export_t {
        name: text::leak_str("apiban"),
        type_: k::PVT_OTHER,
        getf: Some(get),
        setf: None,
        parse_name: Some(parse_name),
        parse_index: None,
        init_param: None,
        iparam: 0,
    }])
}

/// Accepts the names of [`VARIABLES`]; below zero ends the start of Kamailio.
unsafe extern "C" fn parse_name(spec: *mut k::pv_spec_t, name: *mut k::str_) -> c_int {
    guard(-1, "$apiban", || {
        // SAFETY: both come from the core and are valid during the call.
        let (spec, name) = unsafe { (spec.as_mut(), name.as_ref().map(|name| text::bytes(name))) };
        let index = VARIABLES
            .iter()
            .position(|known| Some(known.name.as_bytes()) == name);
        match (spec, index) {
            (Some(spec), Some(index)) => {
                // For this type the core does not look at the value: the index stands in place of a pointer.
                spec.pvp.pvn.type_ = k::PV_NAME_OTHER;
                spec.pvp.pvn.u.dname = index as *mut c_void;
                0
            }
            _ => {
                let shown = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                let known: Vec<&str> = VARIABLES.iter().map(|known| known.name).collect();
                error!("$apiban({shown}): unknown; there are {}", known.join(", "));
                -1
            }
        }
    })
}

/// The value in the route that runs, `$null` outside a route.
unsafe extern "C" fn get(
    msg: *mut k::sip_msg_t,
    param: *mut k::pv_param_t,
    result: *mut k::pv_value_t,
) -> c_int {
    guard(-1, "$apiban", || {
        // SAFETY: the name was set by `parse_name`; results are filled by the core's own functions. The
        // texts live in `CURRENT` until the route has ended, which covers their use.
        unsafe {
            let index = param.as_ref().map(|param| param.pvn.u.dname as usize);
            let Some(variable) = index.and_then(|index| VARIABLES.get(index)) else {
                return -1;
            };
            CURRENT.with_borrow(|event| {
                let Some(event) = event else {
                    return k::pv_get_null(msg, param, result);
                };
                let value = match (variable.read)(event) {
                    Value::Text(text) => text,
                    Value::Number(number) => {
                        return k::pv_get_uintval(msg, param, result, u64::from(number));
                    }
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
