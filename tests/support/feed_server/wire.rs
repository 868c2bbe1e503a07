//! Just enough HTTP/1.1 for a server on loopback.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::Duration;

/// Pause between the bytes of a slow answer.
const DRIP: Duration = Duration::from_millis(100);

/// Any connection, plain or TLS.
pub trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Received {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// An answer to be sent.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Send this many bytes of the body and close.
    pub cut_at: Option<usize>,
    /// Send the body byte by byte.
    pub slowly: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Reply {
            status,
            body: body.into(),
            ..Reply::default()
        }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// Reads one request; `None` at the end of the connection.
pub fn read_request(stream: &mut BufReader<Box<dyn Stream>>) -> io::Result<Option<Received>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, path) = (word(), word());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            None => break,
        }
    }
    let mut received = Received {
        method,
        path,
        headers,
        body: String::new(),
    };
    let length = received
        .header("content-length")
        .and_then(|v| v.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    received.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(received))
}

/// Sends the answer; true where the connection may go on.
pub fn send(stream: &mut dyn Stream, reply: &Reply) -> io::Result<bool> {
    let mut head = format!(
        "HTTP/1.1 {} X\r\nContent-Length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    let end = reply.cut_at.unwrap_or(reply.body.len());
    if reply.slowly {
        for byte in &reply.body[..end] {
            stream.write_all(&[*byte])?;
            stream.flush()?;
            thread::sleep(DRIP);
        }
    } else {
        stream.write_all(&reply.body[..end])?;
    }
    stream.flush()?;
    Ok(reply.cut_at.is_none())
}
