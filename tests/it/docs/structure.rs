//! Data flows one way: the import graph of `src` has no cycle, between the top-level modules and between
//! the files of `src/kamailio`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Graph = BTreeMap<String, BTreeSet<String>>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below `folder`.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without comments and without its tests, which may import anything.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or("");
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first names behind `prefix` wherever it stands: `a` and `b` of `crate::{a, b::{c, d}}`, `a` of
/// `crate::a::b`.
fn names_behind(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    names.insert(word(&group[index..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

/// The imports between the top-level modules.
fn top_level() -> Graph {
    let root = source();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut graph = Graph::new();
    for path in files {
        let inside = path.strip_prefix(&root).expect("below src");
        let first = inside.components().next().expect("a name");
        let name = Path::new(first.as_os_str()).file_stem().expect("a name");
        let name = name.to_string_lossy().into_owned();
        if name == "lib" || name == "bin" {
            continue;
        }
        let names = names_behind(&code(&path), "crate::");
        graph.entry(name).or_default().extend(names);
    }
    only_nodes(graph)
}

/// The imports between the files of `src/kamailio`.
fn kamailio() -> Graph {
    let mut files = Vec::new();
    rust_files(&source().join("kamailio"), &mut files);
    let mut graph = Graph::new();
    for path in files {
        let name = path.file_stem().expect("a name").to_string_lossy();
        if name == "mod" {
            continue;
        }
        let mut names = names_behind(&code(&path), "super::");
        names.extend(names_behind(&code(&path), "crate::kamailio::"));
        graph.entry(name.into_owned()).or_default().extend(names);
    }
    only_nodes(graph)
}

/// Leaves out what is no module of the graph (macros), and each module's import of itself.
fn only_nodes(mut graph: Graph) -> Graph {
    let nodes: BTreeSet<String> = graph.keys().cloned().collect();
    for (node, targets) in &mut graph {
        targets.retain(|target| nodes.contains(target) && target != node);
    }
    graph
}

/// What is left after the nodes that import nothing are taken away, again and again: every node of a cycle,
/// and whatever leads to one.
fn cyclic(mut graph: Graph) -> Graph {
    loop {
        let leaves: Vec<String> = graph
            .iter()
            .filter(|(_, targets)| targets.iter().all(|target| !graph.contains_key(target)))
            .map(|(node, _)| node.clone())
            .collect();
        if leaves.is_empty() {
            return graph;
        }
        leaves.iter().for_each(|leaf| drop(graph.remove(leaf)));
    }
}

fn graph_of(edges: &[(&str, &str)]) -> Graph {
    let mut graph = Graph::new();
    for (from, to) in edges {
        graph.entry((*to).into()).or_default();
        graph
            .entry((*from).into())
            .or_default()
            .insert((*to).into());
    }
    graph
}

#[test]
fn no_cycle_between_top_level_modules() {
    let graph = top_level();
    assert!(graph["kamailio"].contains("updater") && graph["updater"].contains("feed"));
    assert!(!graph.values().any(|targets| targets.contains("kamailio")));
    assert_eq!(cyclic(graph), Graph::new());
}

#[test]
fn no_cycle_between_the_files_that_speak_c() {
    let graph = kamailio();
    assert!(graph["lifecycle"].contains("events") && graph["events"].contains("child"));
    assert_eq!(cyclic(graph), Graph::new());
}

#[test]
fn a_cycle_is_found() {
    let line = [("a", "b"), ("b", "c"), ("a", "c")];
    assert_eq!(cyclic(graph_of(&line)), Graph::new());
    let ring = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")];
    let left: Vec<String> = cyclic(graph_of(&ring)).into_keys().collect();
    assert_eq!(left, ["a", "b", "c"]);
}

#[test]
fn imports_are_found() {
    let code = "use crate::{a, b::{c, d}, e};\nuse crate::f::g;\nlet x = crate::h::i(my_crate::j);";
    let names: Vec<String> = names_behind(code, "crate::").into_iter().collect();
    assert_eq!(names, ["a", "b", "e", "f", "h"]);
}
