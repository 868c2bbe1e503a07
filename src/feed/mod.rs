//! The APIBAN list: fetched, parsed, scheduled.
