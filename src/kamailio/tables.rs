//! Tables that Kamailio keeps, and the functions in them.

use super::bindings as k;

/// A row of a table whose end Kamailio finds by a row of zeros.
///
/// # Safety
/// Zeros must be a valid value of the type.
pub unsafe trait Row: Copy {}

// SAFETY: C structures of numbers, pointers, and optional functions.
unsafe impl Row for k::cmd_export_t {}
// SAFETY: as above.
unsafe impl Row for k::param_export_t {}
// SAFETY: as above.
unsafe impl Row for k::rpc_export_t {}
// SAFETY: as above.
unsafe impl Row for k::pv_export_t {}
// SAFETY: as above.
unsafe impl Row for k::sr_kemi_t {}

/// `rows` with the row that ends them, in memory that is never freed.
pub fn leak_table<T: Row>(rows: impl IntoIterator<Item = T>) -> *mut T {
    // SAFETY: `Row` promises that zeros are a valid value.
    let end = unsafe { std::mem::zeroed() };
    let rows: Vec<T> = rows.into_iter().chain([end]).collect();
    Vec::leak(rows).as_mut_ptr()
}

/// How many functions [`trampolines`] makes.
pub const TRAMPOLINES: usize = 64;

/// `[function::<0>, .., function::<63>]`. Kamailio passes a function of a table nothing about its row, so each
/// row has an instance of its own with its number.
macro_rules! trampolines {
    ($function:ident as $type:ty) => {
        trampolines!(@ $function, $type,
             0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47
            48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63)
    };
    (@ $function:ident, $type:ty, $($index:literal)*) => {{
        let functions: [$type; $crate::kamailio::tables::TRAMPOLINES] = [$($function::<$index> as $type),*];
        functions
    }};
}
pub(crate) use trampolines;
