//! Bans in the kernel: nf_tables, iptables-api, and what runs them.

mod flood;
mod ipset;
mod iptables_api;
mod iptables_api_kamailio;
mod nft;
mod nft_counters;
mod nft_instances;
mod nft_kamailio;
mod nft_lifecycle;
mod nft_scale;
mod nft_table;
mod nft_trust;
mod runner;
mod socket_filter;
