//! Statistics, as counters of the core: read by kex, the counters module and xhttp_prom.

use std::ffi::{c_long, c_void};

use super::bindings as k;
use super::guard::guard;
use super::module::module;
use super::text;
use crate::statistics::STATISTICS;

/// Registers them all; possible in `mod_init` only. False if the core refuses one.
pub fn register() -> bool {
    STATISTICS.iter().enumerate().all(|(index, statistic)| {
        let (name, help) = (text::to_c(statistic.name), text::to_c(statistic.help));
        // SAFETY: the core copies the texts; the callback gets the index back as its parameter.
        unsafe {
            k::counter_register(
                std::ptr::null_mut(),
                c"apiban".as_ptr(),
                name.as_ptr(),
                k::CNT_F_NO_RESET,
                Some(read),
                index as *mut c_void,
                help.as_ptr(),
                0,
            ) == 0
        }
    })
}

/// Runs in whichever process asks.
unsafe extern "C" fn read(_: k::counter_handle_t, index: *mut c_void) -> c_long {
    guard(0, "a statistic", || {
        match (module(), STATISTICS.get(index as usize)) {
            (Some(module), Some(statistic)) => (statistic.read)(&module.shared) as c_long,
            _ => 0,
        }
    })
}
