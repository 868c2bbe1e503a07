//! The symbols that the loader must find in the `kamailio` executable.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::declared::{identifiers_after, GENERATED};

/// Dynamic symbols by name, with the letter that `nm` gives their kind.
fn dynamic_symbols(file: &Path, which: &str) -> BTreeMap<String, char> {
    let output = Command::new("nm").args(["-D", which]).arg(file).output();
    let output = output.expect("nm of binutils is needed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", file.display());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace().rev();
            let name = words.next().expect("nm prints a name").to_owned();
            (
                name,
                words
                    .next()
                    .and_then(|kind| kind.chars().next())
                    .expect("nm prints a kind"),
            )
        })
        .collect()
}

/// Kamailio's executables to check against; none where it is not installed.
fn kamailio_binaries() -> Vec<PathBuf> {
    if let Some(paths) = env::var_os("KAMAILIO_BINARY") {
        return env::split_paths(&paths).collect();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders
        .map(|folder| folder.join("kamailio"))
        .find(|file| file.is_file());
    if found.is_none() {
        println!("kamailio is not installed: symbols are not compared");
    }
    found.into_iter().collect()
}

/// The module of this test run: the one that is named, else what cargo built beside the test's executable or one
/// folder up.
fn module() -> PathBuf {
    if let Some(given) = env::var_os("APIBAN_MODULE") {
        return given.into();
    }
    let executable = env::current_exe().unwrap();
    let built = executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("libapiban.so"))
        .filter_map(|file| Some((fs::metadata(&file).and_then(|m| m.modified()).ok()?, file)))
        .max();
    built
        .expect("cargo builds libapiban.so together with this test")
        .1
}

/// What the loader will not find: neither optional, nor of the C library or the compiler's, nor
/// Kamailio's.
fn unresolved(
    undefined: &BTreeMap<String, char>,
    exported: &BTreeMap<String, char>,
) -> Vec<String> {
    let of_the_system = |version: &str| ["GLIBC_", "GCC_"].iter().any(|v| version.starts_with(v));
    undefined
        .iter()
        .filter(|(_, kind)| !matches!(kind, 'w' | 'v'))
        .filter(|(name, _)| match name.split_once('@') {
            Some((_, version)) => !of_the_system(version.trim_start_matches('@')),
            None => !exported.contains_key(*name),
        })
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn the_module_finds_every_symbol_it_needs() {
    let module = module();
    let undefined = dynamic_symbols(&module, "--undefined-only");
    assert!(
        !undefined.is_empty(),
        "{} needs not even the C library",
        module.display()
    );
    for kamailio in kamailio_binaries() {
        let missing = unresolved(&undefined, &dynamic_symbols(&kamailio, "--defined-only"));
        assert!(
            missing.is_empty(),
            "{} does not export {missing:?}",
            kamailio.display()
        );
    }
}

#[test]
fn a_missing_symbol_is_noticed() {
    let symbols = |list: &[(&str, char)]| -> BTreeMap<String, char> {
        list.iter()
            .map(|(name, kind)| ((*name).to_owned(), *kind))
            .collect()
    };
    let undefined = symbols(&[
        ("malloc@GLIBC_2.2.5", 'U'),
        ("_Unwind_Resume@GCC_3.0", 'U'),
        ("__gmon_start__", 'w'),
        ("find_export", 'U'),
        ("no_such_export", 'U'),
        ("SSL_new@OPENSSL_3.0.0", 'U'),
    ]);
    let exported = symbols(&[("find_export", 'T')]);
    assert_eq!(
        unresolved(&undefined, &exported),
        ["SSL_new@OPENSSL_3.0.0", "no_such_export"]
    );
}

#[test]
fn every_declared_symbol_is_exported() {
    let functions: BTreeSet<_> = identifiers_after(GENERATED, "pub fn ").collect();
    let variables: BTreeSet<_> = identifiers_after(GENERATED, "pub static ").collect();
    assert!(functions.contains("find_export") && variables.contains("event_rt"));
    for kamailio in kamailio_binaries() {
        let exported = dynamic_symbols(&kamailio, "--defined-only");
        let kind = |name: &str| exported.get(name).copied();
        let wrong: Vec<_> = functions
            .iter()
            .filter(|name| kind(name) != Some('T'))
            .chain(
                variables
                    .iter()
                    .filter(|name| !matches!(kind(name), Some('B' | 'D' | 'R'))),
            )
            .collect();
        assert!(
            wrong.is_empty(),
            "{}: {wrong:?} are not what we declare",
            kamailio.display()
        );
    }
}
