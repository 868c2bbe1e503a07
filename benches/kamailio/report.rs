//! What was measured, and BENCHMARKS.md made of it.

use std::fmt::Write as _;

use crate::samples::{number, Samples};

/// One part of the benchmark.
#[derive(Default)]
pub struct Section {
    /// Heading.
    pub title: String,
    /// How it was measured, and what the reader should know.
    pub text: String,
    /// The figures.
    pub tables: Vec<Table>,
    /// Promises, and whether they are kept.
    pub targets: Vec<Target>,
}

/// Rows of figures of one unit.
pub struct Table {
    /// What the rows are.
    pub title: String,
    /// Unit of all figures.
    pub unit: &'static str,
    /// Name and samples.
    pub rows: Vec<(String, Samples)>,
    /// The row that the others are compared with, by its name.
    pub base: Option<String>,
}

/// A promise.
pub struct Target {
    /// What is promised.
    pub what: String,
    /// At most this.
    pub limit: f64,
    /// The figure.
    pub got: Samples,
    /// Unit of both.
    pub unit: &'static str,
}

impl Target {
    /// Whether the median keeps the promise.
    pub fn met(&self) -> bool {
        self.got.median() <= self.limit
    }
}

impl Section {
    /// A section without figures.
    pub fn new(title: &str, text: &str) -> Section {
        Section {
            title: title.into(),
            text: text.into(),
            ..Section::default()
        }
    }

    /// Adds a table and gives it, for its rows.
    pub fn table(&mut self, title: &str, unit: &'static str) -> &mut Table {
        self.tables.push(Table {
            title: title.into(),
            unit,
            rows: Vec::new(),
            base: None,
        });
        self.tables.last_mut().expect("just pushed")
    }

    /// Adds a promise.
    pub fn target(&mut self, what: &str, got: Samples, limit: f64, unit: &'static str) {
        self.targets.push(Target {
            what: what.into(),
            limit,
            got,
            unit,
        });
    }
}

impl Table {
    /// Adds a row.
    pub fn row(&mut self, name: &str, samples: Samples) -> &mut Table {
        self.rows.push((name.into(), samples));
        self
    }

    /// The row that the others are compared with.
    pub fn compared_with(&mut self, name: &str) -> &mut Table {
        self.base = Some(name.into());
        self
    }

    /// The samples of a row.
    pub fn find(&self, name: &str) -> Option<&Samples> {
        let found = self.rows.iter().find(|row| row.0 == name);
        found.map(|row| &row.1)
    }

    fn markdown(&self, text: &mut String) {
        let base = self
            .base
            .as_ref()
            .and_then(|name| Some((name, self.find(name)?)));
        let _ = write!(
            text,
            "| {} | median, {} | middle half | runs |",
            self.title, self.unit
        );
        if let Some((name, _)) = base {
            let _ = write!(text, " times \"{name}\" |");
        }
        text.push_str("\n| --- | ---: | ---: | ---: |");
        text.push_str(if base.is_some() { " ---: |\n" } else { "\n" });
        for (name, samples) in &self.rows {
            let (low, high) = samples.quartiles();
            let (low, high) = (number(low), number(high));
            let (median, runs) = (number(samples.median()), samples.0.len());
            let _ = write!(text, "| {name} | {median} | {low} to {high} | {runs} |");
            if let Some((_, base)) = base {
                let _ = write!(text, " {} |", number(samples.ratio(base).median()));
            }
            text.push('\n');
        }
        text.push('\n');
    }
}

/// The heading under which all promises stand once more.
const PROMISES: &str = "Promises";
/// The head of a table of promises.
const PROMISES_HEAD: &str =
    "| promise | at most | measured | middle half | |\n| --- | ---: | ---: | ---: | --- |\n";

impl Section {
    /// The section with its heading. `when`: on what day, how busy the machine was.
    fn markdown(&self, when: &str) -> String {
        let mut text = format!("{}\n\n{}\n\n{when}\n\n", self.title, self.text.trim());
        if !self.targets.is_empty() {
            text.push_str(PROMISES_HEAD);
            for target in &self.targets {
                target.markdown(&mut text);
            }
            text.push('\n');
        }
        for table in &self.tables {
            table.markdown(&mut text);
        }
        text
    }
}

impl Target {
    fn markdown(&self, text: &mut String) {
        let (low, high) = self.got.quartiles();
        let _ = writeln!(
            text,
            "| {} | {} {unit} | {} {unit} | {} to {} | {} |",
            self.what,
            number(self.limit),
            number(self.got.median()),
            number(low),
            number(high),
            if self.met() { "kept" } else { "**missed**" },
            unit = self.unit
        );
    }
}

/// The whole report: `sections` in place of those with the same headings in the report `before`, whose other sections
/// stay.
pub fn markdown(head: &str, before: &str, when: &str, sections: &[Section]) -> String {
    let (_, before) = before.split_once("\n## ").unwrap_or_default();
    let mut all: Vec<(String, String)> = before
        .split("\n## ")
        .map(|text| (heading(text).to_owned(), format!("{}\n", text.trim_end())))
        .filter(|(title, _)| !title.is_empty() && title != PROMISES)
        .collect();
    for section in sections {
        let text = section.markdown(when);
        match all.iter_mut().find(|(title, _)| *title == section.title) {
            Some((_, old)) => *old = text,
            None => all.push((section.title.clone(), text)),
        }
    }
    let mut text = format!("# Benchmarks\n\n{head}\n## {PROMISES}\n\n{PROMISES_HEAD}");
    for (_, section) in &all {
        if let Some((_, after)) = section.split_once(PROMISES_HEAD) {
            let rows = after.lines().take_while(|line| !line.is_empty());
            rows.for_each(|row| text.extend([row, "\n"]));
        }
    }
    for (_, section) in &all {
        text.extend(["\n## ", section.trim_end(), "\n"]);
    }
    text
}

fn heading(section: &str) -> &str {
    section.lines().next().unwrap_or_default()
}
