//! The arguments of an RPC command, as its transport gives them.
//!
//! All of them are read as text: `.` makes the transport convert numbers, `*` makes an argument optional. No
//! transport reports the type that an argument had, and each has its own sign for one that cannot be converted.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr;

use super::bindings as k;
use super::text;

/// More arguments than any command takes.
const MOST: usize = 8;
const TEXTS: &CStr = c"*.S*.S*.S*.S*.S*.S*.S*.S";
const TEXT: &CStr = c"*.S";
const NUMBER: &CStr = c"*d";

/// The arguments in order.
///
/// # Errors
/// The index of one that is neither text nor a whole number: `null`, `true`, a list, or, over ctl, a
/// fraction.
///
/// # Safety
/// `context` must be the one that the transport gave with `rpc`.
pub unsafe fn read(rpc: &k::rpc_t, context: *mut c_void) -> Result<Vec<String>, usize> {
    let Some(scan) = rpc.scan else {
        return Ok(Vec::new());
    };
    // SAFETY: the caller's.
    unsafe {
        // Of all transports only ctl has none.
        if rpc.capabilities.is_none() {
            read_at_once(scan, context)
        } else {
            read_one_by_one(scan, context)
        }
    }
}

type Scan = unsafe extern "C" fn(*mut c_void, *const c_char, ...) -> c_int;

/// ctl skips an argument that it cannot convert, and a second scan would go on after it. But the result of one
/// scan is the place of that argument: minus the number of arguments before it.
unsafe fn read_at_once(scan: Scan, context: *mut c_void) -> Result<Vec<String>, usize> {
    let mut values = [EMPTY; MOST];
    let read = {
        let [a, b, c, d, e, f, g, h] = values.each_mut().map(ptr::from_mut);
        // SAFETY: the format asks for as many texts; those that were read are valid until the handler returns.
        unsafe { scan(context, TEXTS.as_ptr(), a, b, c, d, e, f, g, h) }
    };
    if read == 0 {
        let mut next = EMPTY;
        // SAFETY: as above, for one text.
        let more = unsafe { scan(context, TEXT.as_ptr(), &raw mut next) };
        return if more == 0 { Ok(Vec::new()) } else { Err(0) };
    }
    let count = usize::try_from(read).map_err(|_| read.unsigned_abs() as usize)?;
    // SAFETY: as above.
    let texts = values
        .iter()
        .take(count)
        .map(|value| unsafe { owned(value) });
    Ok(texts.collect())
}

/// The other transports stop at an argument that they cannot convert; JSON-RPC prints all numbers into one buffer.
unsafe fn read_one_by_one(scan: Scan, context: *mut c_void) -> Result<Vec<String>, usize> {
    let mut arguments = Vec::new();
    while arguments.len() < MOST {
        let mut value = EMPTY;
        // SAFETY: the format asks for one text; it is valid until the next scan. After a failed scan it may
        // point to a filler, so it is used only if one was read.
        if unsafe { scan(context, TEXT.as_ptr(), &raw mut value) } < 1 {
            break;
        }
        // SAFETY: as above.
        arguments.push(unsigned_as_signed(unsafe { owned(&value) }));
    }
    let mut number: c_int = 0;
    // SAFETY: the format asks for one number. JSON-RPC reads any value as one.
    if unsafe { scan(context, NUMBER.as_ptr(), &raw mut number) } >= 1 {
        return Err(arguments.len());
    }
    Ok(arguments)
}

const EMPTY: k::str_ = k::str_ {
    s: ptr::null_mut(),
    len: 0,
};

/// # Safety
/// `value` must be a valid text.
unsafe fn owned(value: &k::str_) -> String {
    // SAFETY: the caller's.
    String::from_utf8_lossy(unsafe { text::bytes(value) }).into_owned()
}

/// JSON-RPC prints -1 as 18446744073709551615 on x86_64. On aarch64, where the conversion of a negative number to an
/// unsigned one ends at 0, it prints 0, which cannot be distinguished from a real 0.
fn unsigned_as_signed(text: String) -> String {
    match text.parse::<u64>() {
        Ok(number) if i64::try_from(number).is_err() => (number as i64).to_string(),
        _ => text,
    }
}
