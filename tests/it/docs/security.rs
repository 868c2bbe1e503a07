//! SECURITY.md names tests: they must be there.

use std::path::Path;

const TEXT: &str = include_str!("../../../SECURITY.md");

#[test]
fn every_file_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    // What stands between backticks: every second piece.
    for word in TEXT.split('`').skip(1).step_by(2) {
        let is_path =
            word.ends_with(".rs") || word.starts_with("tests/") || word.starts_with("src/");
        if !is_path {
            continue;
        }
        named += 1;
        let found = root.join(word).exists() || root.join("tests/it").join(word).exists();
        assert!(found, "SECURITY.md names {word}, which is not there");
    }
    assert!(named > 20, "only {named} files are named");
}
