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

/// The whole report.
pub fn markdown(head: &str, sections: &[Section], table: Option<&str>) -> String {
    let mut text = format!("# Benchmarks\n\n{head}\n");
    text.push_str("## Promises\n\n| promise | at most | measured | middle half | |\n");
    text.push_str("| --- | ---: | ---: | ---: | --- |\n");
    for target in sections.iter().flat_map(|section| &section.targets) {
        let (low, high) = target.got.quartiles();
        let _ = writeln!(
            text,
            "| {} | {} {unit} | {} {unit} | {} to {} | {} |",
            target.what,
            number(target.limit),
            number(target.got.median()),
            number(low),
            number(high),
            if target.met() { "kept" } else { "**missed**" },
            unit = target.unit
        );
    }
    for section in sections {
        let _ = write!(
            text,
            "\n## {}\n\n{}\n\n",
            section.title,
            section.text.trim()
        );
        for table in &section.tables {
            table.markdown(&mut text);
        }
    }
    if let Some(table) = table {
        let _ = write!(text, "\n## The ban table by itself\n\nWithout Kamailio, in one process (`cargo bench --bench table`).\n\n```\n{}\n```\n", table.trim_end());
    }
    text
}
