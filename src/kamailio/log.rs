//! Kamailio's log, as its own logging macros write it.

use std::ffi::{c_char, c_int};

use super::bindings as k;
use super::text;
use crate::log::{Level, Origin};

const NAME: &std::ffi::CStr = c"apiban";

/// Takes lines in place of the core, if a module such as `log_custom` has set it.
type Engine = unsafe extern "C" fn(*mut k::ksr_logdata_t, *const c_char, ...);
/// `syslog`, or what stands in for it.
type Syslog = unsafe extern "C" fn(c_int, *const c_char, ...);

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
    // SAFETY: the table of the core has a row for every level; the rest is the caller's.
    unsafe {
        let rows: *const k::log_level_info = (&raw const k::log_level_info).cast();
        let line = Line {
            level,
            row: &*rows.offset((level - k::L_ALERT) as isize),
            origin,
            message,
        };
        if let Some(engine) = k::_ksr_slog_func {
            to_engine(engine, &line);
        } else if k::log_stderr != 0 {
            to_stderr(&line);
        } else if let Some(log) = k::_km_log_func {
            to_syslog(log, &line);
        }
    }
}

/// One line for the log.
struct Line<'a> {
    level: i32,
    /// What the core knows of the level.
    row: &'static k::log_level_info,
    origin: Origin,
    message: &'a str,
}

impl Line<'_> {
    /// The module, and where in its source the line comes from.
    fn place(&self) -> String {
        format!("apiban [{}:{}]: ", self.origin.file, self.origin.line)
    }

    /// Priority and facility for syslog.
    ///
    /// # Safety
    /// As for [`write`].
    unsafe fn priority(&self) -> i32 {
        // SAFETY: the caller's.
        let facility = unsafe { k::get_debug_facility(NAME.as_ptr(), NAME.count_bytes() as i32) };
        self.row.syslog_level | facility
    }
}

/// What `log_prefix` adds to lines about the message in progress.
///
/// # Safety
/// As for [`write`].
unsafe fn prefix() -> String {
    // SAFETY: NULL, or a text of the core that lives until the message ends.
    let prefix = unsafe { k::log_prefix_val.as_ref().map(|prefix| text::bytes(prefix)) };
    String::from_utf8_lossy(prefix.unwrap_or_default()).into_owned()
}

/// Passes the line to a module that has taken the log over.
///
/// # Safety
/// As for [`write`].
unsafe fn to_engine(engine: Engine, line: &Line<'_>) {
    let file = text::to_c(line.origin.file);
    let place = text::to_c(&line.place());
    let message = text::to_c(line.message);
    // SAFETY: the format takes one string; all texts live until the call returns.
    unsafe {
        let mut data = k::ksr_logdata_t {
            v_facility: line.priority(),
            v_level: line.level,
            v_lname: line.row.name,
            v_fname: file.as_ptr(),
            v_fline: line.origin.line as i32,
            v_mname: NAME.as_ptr(),
            v_func: c"".as_ptr(),
            v_locinfo: place.as_ptr(),
            v_pid: 0,
            v_pidx: 0,
        };
        engine(&mut data, c"%s".as_ptr(), message.as_ptr());
    }
}

/// # Safety
/// As for [`write`].
unsafe fn to_stderr(line: &Line<'_>) {
    // SAFETY: plain calls and reads of the core's variables; the name is a constant of the core.
    unsafe {
        let (index, pid) = (k::process_no, k::my_pid());
        let name = text::from_c(line.row.name).unwrap_or("");
        let (prefix, place, message) = (prefix(), line.place(), line.message);
        let text = format!("{index:2}({pid}) {name}: {prefix}{place}{message}\n");
        if k::log_color != 0 {
            k::dprint_color(line.level);
        }
        // One write for the whole line: lines of several processes do not mix.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        if k::log_color != 0 {
            k::dprint_color_reset();
        }
    }
}

/// # Safety
/// As for [`write`].
unsafe fn to_syslog(log: Syslog, line: &Line<'_>) {
    let place = text::to_c(&line.place());
    let message = text::to_c(line.message);
    // SAFETY: the format takes four strings; all texts live until the call returns.
    unsafe {
        let prefix = text::to_c(&prefix());
        log(
            line.priority(),
            c"%s: %s%s%s\n".as_ptr(),
            line.row.name,
            prefix.as_ptr(),
            place.as_ptr(),
            message.as_ptr(),
        );
    }
}
