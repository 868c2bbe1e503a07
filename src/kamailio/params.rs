//! `modparam("apiban", ...)`: each line reaches [`Config::set`] as it is read.

use std::ffi::{c_int, c_void};
use std::sync::Mutex;

use super::bindings as k;
use super::guard::guard;
use super::text;
use crate::config::{Config, RawValue, PARAMETERS};
use crate::error;

/// The parameters read so far. Only the main process is there while it is used.
static CONFIG: Mutex<Option<Config>> = Mutex::new(None);

/// The core tells a setter the value but not the name, so each parameter has a setter of its own.
const SETTERS: usize = 40;
const _: () = assert!(PARAMETERS.len() <= SETTERS);

/// The finished configuration; starts anew.
pub fn take() -> Config {
    CONFIG
        .lock()
        .map(|mut config| config.take())
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// The table for the core. Every name stands there as number and as string, so that a value of the
/// wrong kind gets our error and not a "parameter not found".
pub fn table() -> Vec<k::param_export_t> {
    let setters = setters();
    let mut table = Vec::new();
    for (parameter, setter) in PARAMETERS.iter().zip(setters) {
        for kind in [k::PARAM_INT, k::PARAM_STR] {
            table.push(k::param_export_t {
                name: text::leak(parameter.name),
                type_: kind | k::PARAM_USE_FUNC,
                param_pointer: setter as *mut c_void,
            });
        }
    }
    table.push(k::param_export_t {
        name: std::ptr::null(),
        type_: 0,
        param_pointer: std::ptr::null_mut(),
    });
    table
}

type Setter = unsafe extern "C" fn(u32, *mut c_void) -> c_int;

macro_rules! each {
    ($($index:literal)*) => { [$(set::<$index> as Setter),*] };
}

fn setters() -> [Setter; SETTERS] {
    each![0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39]
}

/// Takes one value; below zero ends the start of Kamailio.
unsafe extern "C" fn set<const INDEX: usize>(kind: u32, value: *mut c_void) -> c_int {
    guard(-1, "modparam", || {
        let Some(parameter) = PARAMETERS.get(INDEX) else {
            return -1;
        };
        let mut text = None;
        let given = if kind & k::PARAM_INT != 0 {
            RawValue::Int(value as isize as i32 as i64)
        } else {
            // SAFETY: for this type the core passes a `str`, valid during the call.
            text = unsafe { value.cast::<k::str_>().as_ref() };
            // SAFETY: as above.
            let bytes = text.map(|text| unsafe { text::bytes(text) });
            RawValue::Text(
                bytes
                    .and_then(|bytes| std::str::from_utf8(bytes).ok())
                    .unwrap_or("\u{fffd}"),
            )
        };
        let Ok(mut config) = CONFIG.lock() else {
            return -1;
        };
        let taken = config.get_or_insert_default().set(parameter, given);
        if let (true, Some(text)) = (parameter.secret, text) {
            // SAFETY: the core's own copy of the value, in its heap; nobody reads it after this call.
            unsafe { wipe(text) };
        }
        match taken {
            Ok(()) => 0,
            Err(error) => {
                error!("{error}");
                -1
            }
        }
    })
}

/// Overwrites a secret that the core would otherwise keep in the memory of every process.
///
/// # Safety
/// `text` must be valid and writable, and not borrowed elsewhere.
unsafe fn wipe(text: &k::str_) {
    for index in 0..text.len.max(0) as usize {
        // SAFETY: within the text, as the caller says.
        unsafe { text.s.add(index).write_volatile(b'*' as std::ffi::c_char) };
    }
}
