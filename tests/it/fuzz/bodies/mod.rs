//! What the fuzz targets run on each input, shared with `tests/it/fuzz`.
//!
//! Each `run` takes any bytes and panics where something that must always hold does not.

pub mod address;
pub mod api_answer;
pub mod cluster_message;
pub mod oracle;
pub mod rpc_command;
pub mod state_file;
pub mod trust_list;
pub mod uri;

use std::cell::OnceCell;

use apiban::clock::UnixSeconds;
use apiban::config::Config;
use apiban::memory::HeapArena;
use apiban::shared::Shared;
use apiban::trust;

/// Where the clock of every run begins.
pub const START: UnixSeconds = UnixSeconds::new(1_795_300_000);

/// Parameters with small tables, so that full ones are met.
pub fn config() -> Config {
    Config {
        max_feed_entries: 300,
        max_local_entries: 40,
        block_budget: 30,
        ..Config::default()
    }
}

/// Everybody who is trusted in a run.
pub const TRUSTED: &str = "127.0.0.0/8 ::1 198.51.100.0/24 2001:db8:5::7";

/// Runs `body` on empty tables, with [`TRUSTED`] or nobody trusted. Their memory is never freed, so each
/// thread has one set of them; the clock never goes back, so `body` gets the time it is now.
pub fn with_shared<T>(trusting: bool, body: impl FnOnce(&Shared, &Config) -> T) -> T {
    thread_local! {
        static SHARED: OnceCell<(Shared, Config)> = const { OnceCell::new() };
    }
    SHARED.with(|cell| {
        let (shared, config) = cell.get_or_init(|| {
            // Not to the terminal: a fuzzer tries thousands of commands a second, and many of them log.
            apiban::log::set_sink(|_, _, line| assert_presentable(line, apiban::log::MAX_LINE));
            let config = config();
            let shared = Shared::new(&mut HeapArena, &config, 7).unwrap();
            shared.set_now(START);
            trust_as_asked(&shared, trusting);
            (shared, config)
        });
        if !shared.trust.lent().is_empty() {
            shared.trust.lent().retain(|_, _| false);
            trust_as_asked(shared, trusting);
        }
        shared.trust.spared().retain(|_, _| false);
        for (_, table) in shared.tables() {
            table.retain(|_, _| false);
            assert!(table.is_empty(), "an emptied table is not empty");
        }
        while shared.ban_changes.take().is_some() {}
        shared.ban_changes.lost();
        shared.requests.take();
        // A minute later the budget for bans is whole again.
        shared.set_now(shared.now().shifted(60));
        body(shared, config)
    })
}

fn trust_as_asked(shared: &Shared, trusting: bool) {
    let trusted = if trusting { TRUSTED } else { "" };
    shared
        .trust
        .replace(&trust::parse_parameter(trusted).unwrap());
}

/// Text that is shown to people: one line, bounded.
pub fn assert_presentable(text: &str, limit: usize) {
    assert!(
        !text.chars().any(char::is_control),
        "control character in {text:?}"
    );
    assert!(text.chars().count() <= limit, "too long: {text:?}");
}
