//! What bindgen makes of `kamailio-headers/`. The names are those of C, and nothing is documented
//! here: the headers are.
#![allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_code,
    clippy::all
)]

include!(concat!(env!("OUT_DIR"), "/kamailio.rs"));
