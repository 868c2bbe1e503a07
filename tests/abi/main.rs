//! The binary interface: what `kamailio-headers/` declares, against numbers taken from the real headers
//! of every supported release, and against the symbols of the `kamailio` that is installed.
//!
//! `KAMAILIO_SOURCE` (a source tree): the table of that release is made anew and compared; with `QEMU_AARCH64`
//! (a qemu-aarch64) the table of aarch64, too.
//! `KAMAILIO_BINARY` (paths with colons between): their symbols instead of the installed one's.
//! `APIBAN_MODULE` (a module file): its symbols instead of those of the module that cargo built.

mod declared;
mod symbols;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use declared::{
    constants, generated_structures, identifiers_after, structures, Extent, Structure, GENERATED,
};
use tables::{table, table_text, Table, RELEASES};

fn manifest_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The differences between one structure and one table, as lines to print.
fn compare(structure: &Structure, table: &Table) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: String| wrong.push(format!("{}: {what}", table.release));
    let Structure {
        name,
        table: real,
        path,
        extent,
        size,
        members,
    } = structure;

    match (extent, table.sizes.get(*real)) {
        (_, None) => say(format!("no size of {real} for {name}")),
        (Extent::Same, Some(theirs)) if size != theirs => {
            say(format!("{name} has {size} bytes, {real} {theirs}"))
        }
        (Extent::Shorter(_), Some(theirs)) if size > theirs => say(format!(
            "{name} has {size} bytes, more than {real} with {theirs}"
        )),
        (Extent::Room(_), Some(theirs)) if size < theirs => say(format!(
            "{name} has {size} bytes, too few for {real} with {theirs}"
        )),
        _ => {}
    }

    let find = |member: &str| table.members.get(&((*real).to_owned(), member.to_owned()));
    // A part is compared from its own beginning.
    let base = match path.strip_suffix('.').map(|part| (part, find(part))) {
        None => 0,
        Some((_, Some((offset, real_size)))) => {
            if size != real_size {
                say(format!(
                    "{name} has {size} bytes, {real}.{path} {real_size}"
                ));
            }
            *offset
        }
        Some((part, None)) => {
            say(format!("no member {part} of {real} for {name}"));
            0
        }
    };
    for (member, offset, member_size) in members {
        let full = format!("{path}{}", member.trim_end_matches('_'));
        let ours = (base + offset, *member_size);
        match find(&full) {
            None => say(format!("no member {full} of {real}")),
            Some(theirs) if ours != *theirs => say(format!(
                "{name}.{member} is {ours:?} (offset, size), {real}.{full} {theirs:?}"
            )),
            Some(_) => {}
        }
    }
    wrong
}

#[test]
fn everything_declared_is_listed() {
    let listed = structures()
        .into_iter()
        .map(|s| (s.name, s.members.iter().map(|m| m.0).collect()))
        .collect();
    let (declared, listed) = (lines(&generated_structures()), lines(&listed));
    let difference: Vec<_> = declared.symmetric_difference(&listed).collect();
    assert!(
        difference.is_empty(),
        "in kamailio-headers/ or in tests/abi/declared.rs only: {difference:?}"
    );

    let declared: BTreeSet<_> = identifiers_after(GENERATED, "pub const ").collect();
    let listed: BTreeSet<_> = constants().into_keys().collect();
    let difference: Vec<_> = declared.symmetric_difference(&listed).collect();
    assert!(
        difference.is_empty(),
        "in kamailio-headers/ or in tests/abi/declared.rs only: {difference:?}"
    );
}

/// Each structure and each of its members on a line.
fn lines(structures: &BTreeMap<&str, BTreeSet<&str>>) -> BTreeSet<String> {
    structures
        .iter()
        .flat_map(|(name, members)| {
            let members = members.iter().map(move |member| format!("{name}.{member}"));
            members.chain([(*name).to_owned()])
        })
        .collect()
}

#[test]
fn every_table_in_the_folder_is_used() {
    let found: BTreeSet<String> = fs::read_dir(manifest_dir().join("tests/abi"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| {
            Some(
                name.strip_prefix("kamailio-")?
                    .strip_suffix(".txt")?
                    .to_owned(),
            )
        })
        .collect();
    assert_eq!(found, RELEASES.map(String::from).into());
}

#[test]
fn declarations_match_every_release() {
    let tables = RELEASES.map(table);
    let mut wrong: Vec<String> = structures()
        .iter()
        .flat_map(|s| tables.iter().flat_map(|t| compare(s, t)))
        .collect();
    for table in &tables {
        for (name, value) in constants() {
            match table.constants.get(name) {
                None => wrong.push(format!("{}: no constant {name}", table.release)),
                Some(real) if *real != value => wrong.push(format!(
                    "{}: {name} is {value:#x}, not {real:#x}",
                    table.release
                )),
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    for structure in structures() {
        if let Extent::Shorter(reason) | Extent::Room(reason) = structure.extent {
            println!("{} is not compared in size: {reason}", structure.name);
            let same = tables
                .iter()
                .all(|t| t.sizes[structure.table] == structure.size);
            assert!(!same, "{} no longer needs an exception", structure.name);
        }
    }
}

#[test]
fn a_difference_is_noticed() {
    let mut table = table(RELEASES[0]);
    let hdr_field = structures()
        .into_iter()
        .find(|s| s.name == "hdr_field")
        .unwrap();
    assert_eq!(compare(&hdr_field, &table), Vec::<String>::new());

    let real = "struct hdr_field".to_owned();
    table.sizes.insert(real.clone(), 72);
    table.members.insert((real.clone(), "len".into()), (48, 4));
    table.members.remove(&(real, "next".into()));
    assert_eq!(compare(&hdr_field, &table).len(), 3);
}

#[test]
fn tables_are_what_the_sources_say() {
    let Some(source) = env::var_os("KAMAILIO_SOURCE") else {
        println!("KAMAILIO_SOURCE is not set: the tables are taken as they are");
        return;
    };
    let mut machines = vec![("x86_64", "")];
    if env::var_os("QEMU_AARCH64").is_some() {
        machines.push(("aarch64", "-aarch64"));
    }
    for (machine, suffix) in machines {
        let output = Command::new(manifest_dir().join("tests/abi/extract"))
            .args(["--machine", machine])
            .arg(&source)
            .output()
            .expect("tests/abi/extract needs python3 and gcc");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let made = String::from_utf8(output.stdout).unwrap();
        let number = made
            .strip_prefix("# Kamailio ")
            .and_then(|rest| rest.split(',').next())
            .expect("the first line names the release");
        let release = format!("{number}{suffix}");
        assert!(
            RELEASES.contains(&release.as_str()),
            "no table of {release}"
        );
        assert_eq!(
            made,
            table_text(&release),
            "tests/abi/kamailio-{release}.txt is out of date"
        );
    }
}
