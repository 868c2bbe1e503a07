//! What the tests with a real Kamailio share.
//!
//! [`kamailio`] starts and stops Kamailio on free loopback ports, [`sip`] talks SIP to it from any
//! loopback address, [`script`] shows what script functions returned, [`wait`] polls with a deadline,
//! [`ports`] keeps parallel tests apart.
//! Nothing here sends a packet outside 127.0.0.0/8 and ::1.

// Every test binary compiles this module and uses its own part of it.
#![allow(dead_code, unused_imports)]

pub mod fed;
pub mod feed_server;
pub mod kamailio;
pub mod ports;
pub mod script;
pub mod sip;
pub mod tls;
pub mod wait;
