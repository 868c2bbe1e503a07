//! iptables-api.
