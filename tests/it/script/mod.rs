//! What a script and an operator ask of the module.

mod check_routes;
mod commands;
mod event_routes;
mod kamcli;
mod kemi;
mod local_bans;
mod reports;
mod sources;
mod trust;
mod trust_commands;
mod trust_dmq;
