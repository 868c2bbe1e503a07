//! The processes: start, parameters, releases, updater.

mod clock;
mod entry_points;
mod memory;
mod parameters;
mod releases;
mod starts;
mod updater;
