//! System calls that no library wraps: the second and last folder with unsafe code.
//!
//! Each function wraps one system call and is safe to call. Nothing here knows of Kamailio.

#![allow(unsafe_code)]

pub mod listening;
pub mod mmap;
pub mod signal;
pub mod socket_filter;
