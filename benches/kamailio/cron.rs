//! How a client that is run by cron and ends at the first refusal gets through the list.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What the client has at some time.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Seconds since its first start.
    pub at: f64,
    /// Addresses.
    pub count: usize,
}

/// Runs `runs` times, `pause` apart, each until the list ends or the service refuses. Where a refusal
/// ends a run with the cursor unsaved, as in the published clients, the next one begins anew.
pub fn walk(server: SocketAddr, key: &str, runs: u32, pause: Duration, saves: bool) -> Vec<Point> {
    let begin = Instant::now();
    let mut has = HashSet::new();
    let mut saved = None;
    let mut points = vec![Point { at: 0.0, count: 0 }];
    for run in 0..runs {
        std::thread::sleep((pause * run).saturating_sub(begin.elapsed()));
        let mut cursor = saved;
        if cursor.is_none() {
            has.clear();
        }
        loop {
            let (status, body) = get(server, key, cursor);
            if status == 400 {
                // "no new bans": the only end at which the published clients save the cursor.
                saved = cursor;
                break;
            }
            if status != 200 {
                break;
            }
            let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            let page = body["ipaddress"].as_array().expect("addresses");
            has.extend(page.iter().map(ToString::to_string));
            cursor = body["ID"].as_str().and_then(|id| id.parse().ok());
            if saves {
                saved = cursor;
            }
            points.push(Point {
                at: begin.elapsed().as_secs_f64(),
                count: has.len(),
            });
        }
    }
    points
}

fn get(server: SocketAddr, key: &str, cursor: Option<u64>) -> (u16, String) {
    let mut stream = TcpStream::connect(server).expect("connect");
    let id = cursor.map_or(String::new(), |id| format!("/{id}"));
    let request = format!(
        "GET /api/{key}/banned{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("request");
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("timeout");
    let (mut answer, mut buffer) = (Vec::new(), [0; 65536]);
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length:")?
                    .trim()
                    .parse()
                    .ok()
            });
            if length.is_none_or(|length: usize| body.len() >= length) {
                let status = head
                    .split_whitespace()
                    .nth(1)
                    .and_then(|word| word.parse().ok());
                return (status.unwrap_or(0), body.to_owned());
            }
        }
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => answer.extend_from_slice(&buffer[..length]),
            _ => return (0, String::new()),
        }
    }
}
