//! `modparam("apiban", ...)`: each line reaches [`Config::set`] as it is read.

use std::ffi::{c_int, c_void};
use std::sync::Mutex;

use super::bindings as k;
use super::guard::guard;
use super::tables::{leak_table, trampolines, TRAMPOLINES};
use super::text;
use crate::config::{files, Config, RawValue, PARAMETERS};
use crate::feed::ApiKey;
use crate::{error, warning};

/// The parameters read so far. Only the main process is there while it is used.
static CONFIG: Mutex<Option<Config>> = Mutex::new(None);

const _: () = assert!(PARAMETERS.len() <= TRAMPOLINES);

/// Takes the finished configuration out; the next parameter begins a new one.
pub fn take() -> Config {
    CONFIG
        .lock()
        .map(|mut config| config.take())
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// The table for the core. Every name stands there as number and as string: a value of the wrong kind then gets
/// our error and not a "parameter not found".
pub fn table() -> *mut k::param_export_t {
    let setters = trampolines!(set as Setter);
    leak_table(
        PARAMETERS
            .iter()
            .zip(setters)
            .flat_map(|(parameter, setter)| {
                [k::PARAM_INT, k::PARAM_STR].map(|kind| k::param_export_t {
                    name: text::leak(parameter.name),
                    type_: kind | k::PARAM_USE_FUNC,
                    param_pointer: setter as *mut c_void,
                })
            }),
    )
}

type Setter = unsafe extern "C" fn(u32, *mut c_void) -> c_int;

/// Takes one value; below zero ends the start of Kamailio.
unsafe extern "C" fn set<const INDEX: usize>(kind: u32, value: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    guard(-1, "modparam", || unsafe {
        set_parameter(INDEX, kind, value)
    })
}

/// # Safety
/// `value` must be a number, or a `str` of the core, as `kind` says.
unsafe fn set_parameter(index: usize, kind: u32, value: *mut c_void) -> c_int {
    let Some(parameter) = PARAMETERS.get(index) else {
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
    // SAFETY: a number of the core that is set before the configuration is read.
    let only_checks = unsafe { k::config_check } != 0;
    match taken {
        Ok(()) if only_checks => look_at_files(parameter.name, config.get_or_insert_default()),
        Ok(()) => 0,
        Err(error) => {
            error!("{error}");
            -1
        }
    }
}

/// `kamailio -c` ends before `mod_init`, which reads the files. So the file of a parameter is read here; the
/// result is below zero if the start would end.
fn look_at_files(parameter: &str, config: &Config) -> c_int {
    match parameter {
        "api_key_file" => {
            if let (ApiKey::Unusable(problem), _) = files::read_key(config) {
                error!("{problem}; Kamailio would start with the feed off");
            }
            0
        }
        "trust" | "trust_file" => match files::read_trust(config) {
            Ok(given) => {
                for text in given.warnings {
                    warning!("{text}");
                }
                0
            }
            Err(error) => {
                error!("{error}");
                -1
            }
        },
        _ => 0,
    }
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
