//! Kamailio's log, as its own logging macros write it.

use std::ffi::c_char;

use super::bindings as k;
use super::text;
use crate::log::{Level, Origin};

const NAME: &std::ffi::CStr = c"apiban";

/// Makes Kamailio's log the sink of [`crate::log`].
pub fn install() {
    crate::log::set_sink(write);
}

fn level_number(level: Level) -> i32 {
    match level {
        Level::Error => k::L_ERR,
        Level::Warn => k::L_WARN,
        Level::Notice => k::L_NOTICE,
        Level::Info => k::L_INFO,
        Level::Debug => k::L_DBG,
    }
}

/// Only the thread that may call Kamailio comes here.
fn write(level: Level, origin: Origin, message: &str) {
    let number = level_number(level);
    // SAFETY: plain calls and reads of the core's variables, from the one thread that may log.
    unsafe {
        if k::dprint_crit != 0
            || k::get_debug_level(NAME.as_ptr(), NAME.count_bytes() as i32) < number
        {
            return;
        }
        // The core's signal handlers stay silent while this is above zero.
        k::dprint_crit += 1;
        write_enabled(number, origin, message);
        k::dprint_crit -= 1;
    }
}

/// # Safety
/// As for [`write`]; `level` must be one of the levels in `level_number`.
unsafe fn write_enabled(level: i32, origin: Origin, message: &str) {
    // SAFETY: the table of the core has a row for every level; the log functions take the formats below
    // with exactly these arguments, and all texts live until the call returns.
    unsafe {
        let rows: *const k::log_level_info = (&raw const k::log_level_info).cast();
        let row = &*rows.offset((level - k::L_ALERT) as isize);
        let facility = k::get_debug_facility(NAME.as_ptr(), NAME.count_bytes() as i32);
        let place = text::to_c(&format!("apiban [{}:{}]: ", origin.file, origin.line));
        let message = text::to_c(message);
        if let Some(engine) = k::_ksr_slog_func {
            let file = text::to_c(origin.file);
            let mut data = k::ksr_logdata_t {
                v_facility: row.syslog_level | facility,
                v_level: level,
                v_lname: row.name,
                v_fname: file.as_ptr(),
                v_fline: origin.line as i32,
                v_mname: NAME.as_ptr(),
                v_func: c"".as_ptr(),
                v_locinfo: place.as_ptr(),
                v_pid: 0,
                v_pidx: 0,
            };
            engine(&mut data, c"%s".as_ptr(), message.as_ptr());
            return;
        }
        let prefix = if k::log_prefix_val.is_null() {
            &[][..]
        } else {
            text::bytes(&*k::log_prefix_val)
        };
        let prefix = text::to_c(&String::from_utf8_lossy(prefix));
        let strings: [*const c_char; 4] =
            [row.name, prefix.as_ptr(), place.as_ptr(), message.as_ptr()];
        let [name, prefix, place, message] = strings;
        if k::log_stderr != 0 {
            let name = text::from_c(name).unwrap_or("");
            let (prefix, place) = (
                text::from_c(prefix).unwrap_or(""),
                text::from_c(place).unwrap_or(""),
            );
            let message = text::from_c(message).unwrap_or("");
            let (index, pid) = (k::process_no, k::my_pid());
            let line = format!(
                "{index:2}({pid}) {name}: {prefix}{place}{message}
"
            );
            if k::log_color != 0 {
                k::dprint_color(level);
            }
            // One write, so that lines of several processes do not mix.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            if k::log_color != 0 {
                k::dprint_color_reset();
            }
        } else if let Some(log) = k::_km_log_func {
            log(
                row.syslog_level | facility,
                c"%s: %s%s%s\n".as_ptr(),
                name,
                prefix,
                place,
                message,
            );
        }
    }
}
