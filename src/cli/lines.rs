//! Answers on the standard output, one line after another.

use std::io::{BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::exit::Failure;

/// The standard output with a buffer.
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, std::io::stdout().lock())
}

/// Prints a value as JSON, and a line end.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = stdout();
    serde_json::to_writer(&mut out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
