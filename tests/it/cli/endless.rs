//! `apiban sync` and a service whose list never ends.

use apiban_testing::feed_server::Fault;
use apiban_testing::netns::in_namespace;

use super::fetching::{banned, fetching, many, service, set_of};

/// So many pages are more than any list has.
const MOST_PAGES: usize = 4_000;

#[test]
fn a_list_without_an_end_is_given_up_and_nothing_in_force_is_lost() {
    in_namespace(|| {
        let service = service();
        let listed = many(300);
        service.list(&listed);
        let program = fetching(&service, "firewall = \"nft\"\n");
        // As fast as the service answers: the program has a limit of its own.
        let config = program.dir().join("apiban.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("requests = 1000", "requests = 10000")).unwrap();
        program.run(&["sync"]).ok();
        // Nothing is new since the last run; then the whole list is asked for, and does not end.
        service.set_fault(Fault::NoNewBans(400), Some(1));
        service.set_fault(Fault::Endless, None);
        let before = service.requests().len();
        let ran = program.run(&["sync", "--full"]);
        let asked = service.requests().len() - before;
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(
            ran.err.contains("the list does not end; what came is kept")
                && ran.err.contains("its list did not come to an end")
                && ran.err.contains("the list is kept"),
            "{ran:?}"
        );
        assert_eq!(asked, 1 + MOST_PAGES);
        assert!(banned().is_superset(&set_of(&listed)));
        // The service is again what it was: what it invented goes.
        service.clear_faults();
        program.run(&["sync", "--full"]).ok();
        assert_eq!(banned(), set_of(&listed));
    });
}
