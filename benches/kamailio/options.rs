//! What the command line asks for.

use std::path::PathBuf;

const USAGE: &str = "\
usage: tests/tools/bench [--quick] [--only LETTERS] [--runs N] [--out DIR]
  --quick         short runs: shows that everything works, figures are rough
  --only LETTERS  these parts only, such as ac: a script, b packets, c floods, d protection, e memory,
                  f resync, g kernel, h bans, i socket filter, j cluster, k program,
                  n the kernel's work on a packet
  --runs N        runs of which the median is taken
  --out DIR       where BENCHMARKS.md goes (the working directory)";

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Short runs.
    pub quick: bool,
    /// Letters of the parts to run; empty for all.
    only: String,
    runs: Option<usize>,
    /// Where the report goes.
    pub out: PathBuf,
    /// Output of the table benchmark, to be put into the report.
    pub table: Option<PathBuf>,
}

impl Options {
    /// Reads the command line; ends the program with the usage where it is wrong.
    pub fn parse() -> Options {
        let mut options = Options {
            quick: false,
            only: String::new(),
            runs: None,
            out: PathBuf::from("."),
            table: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| usage());
            match argument.as_str() {
                // From cargo.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--only" => options.only = value(),
                "--runs" => options.runs = Some(value().parse().unwrap_or_else(|_| usage())),
                "--out" => options.out = value().into(),
                "--table" => options.table = Some(value().into()),
                _ => usage(),
            }
        }
        options
    }

    /// Whether this part is to be run.
    pub fn wants(&self, part: char) -> bool {
        self.only.is_empty() || self.only.contains(part)
    }

    /// The first where runs are short, else the second.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick {
            quick
        } else {
            full
        }
    }

    /// Number of runs: what was asked for, or as [`Options::pick`].
    pub fn runs(&self, quick: usize, full: usize) -> usize {
        self.runs.unwrap_or_else(|| self.pick(quick, full)).max(1)
    }
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2);
}
