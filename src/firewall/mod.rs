//! Bans in the firewall of the host.
