//! The program `apiban`: the real binary against the stand-in for the service, kernels, parsers and clients.

mod answers;
mod asterisk;
mod clients;
mod crowdsec;
mod devices;
mod endless;
mod export;
mod fetching;
mod firewalls;
mod mirror;
mod mirror_clients;
mod mmdb;
mod program;
mod report;
mod service;
mod sip3;
