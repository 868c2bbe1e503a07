//! Writes small databases in the MMDB format, version 2.0 of its specification.

use std::net::{IpAddr, Ipv6Addr};

use serde_json::{json, Value};

/// Bytes before the data section and before the metadata.
const SEPARATOR: [u8; 16] = [0; 16];
const METADATA: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// A node's two branches.
#[derive(Clone, Copy)]
enum Branch {
    Nothing,
    Node(usize),
    /// Offset in the data section.
    Data(usize),
}

/// A database of IPv6 with IPv4 at `::/96`: what each network (address and prefix length) has. A network must not
/// lie in another one.
pub fn database(networks: &[(&str, u8, Value)]) -> Vec<u8> {
    let mut nodes = vec![[Branch::Nothing; 2]];
    let mut data = Vec::new();
    for (address, length, value) in networks {
        let (bits, length) = match address.parse::<IpAddr>().expect("an address") {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), length + 96),
            IpAddr::V6(ip) => (Ipv6Addr::to_bits(ip), *length),
        };
        let offset = data.len();
        encode(value, &mut data);
        let mut node = 0;
        for place in 0..length {
            let side = usize::from(bits >> (127 - place) & 1 == 1);
            if place + 1 == length {
                nodes[node][side] = Branch::Data(offset);
            } else if let Branch::Node(next) = nodes[node][side] {
                node = next;
            } else {
                nodes.push([Branch::Nothing; 2]);
                let next = nodes.len() - 1;
                nodes[node][side] = Branch::Node(next);
                node = next;
            }
        }
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for branch in nodes.iter().flatten() {
        let record = match branch {
            Branch::Nothing => count,
            Branch::Node(next) => *next,
            Branch::Data(offset) => count + SEPARATOR.len() + offset,
        };
        file.extend(
            &u32::try_from(record)
                .expect("a small database")
                .to_be_bytes()[1..],
        );
    }
    file.extend(SEPARATOR);
    file.extend(data);
    file.extend(METADATA);
    metadata(count, &mut file);
    file
}

/// Types of unsigned numbers of 16, 32 and 64 bits.
const U16: u8 = 5;
const U32: u8 = 6;
const U64: u8 = 9;

/// What the file says of itself; its numbers have the types that the specification gives them.
fn metadata(node_count: usize, out: &mut Vec<u8>) {
    let texts =
        json!({"database_type": "Test", "languages": ["en"], "description": {"en": "for tests"}});
    let numbers = [
        ("node_count", U32, node_count as u64),
        ("record_size", U16, 24),
        ("ip_version", U16, 6),
        ("binary_format_major_version", U16, 2),
        ("binary_format_minor_version", U16, 0),
        ("build_epoch", U64, 1_795_300_000),
    ];
    let texts = texts.as_object().expect("a map");
    head(7, texts.len() + numbers.len(), out);
    for (key, value) in texts {
        encode(&Value::String(key.clone()), out);
        encode(value, out);
    }
    for (key, kind, number) in numbers {
        encode(&Value::String(key.to_owned()), out);
        unsigned(kind, number, out);
    }
}

/// An unsigned number without its leading zeros.
fn unsigned(kind: u8, number: u64, out: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    head(kind, bytes.len(), out);
    out.extend(bytes);
}

/// The control byte of a type and a length, and what of them does not fit into it.
fn head(kind: u8, length: usize, out: &mut Vec<u8>) {
    let kind_bits = if kind < 8 { kind << 5 } else { 0 };
    let (low, more) = match length {
        0..29 => (u8::try_from(length).expect("fits"), None),
        29..285 => (29, Some(u8::try_from(length - 29).expect("fits"))),
        _ => unreachable!("no value of a test is that long"),
    };
    out.push(kind_bits | low);
    if kind >= 8 {
        out.push(kind - 7);
    }
    out.extend(more);
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            head(2, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Number(number) => unsigned(U32, number.as_u64().expect("unsigned"), out),
        Value::Object(map) => {
            head(7, map.len(), out);
            for (key, value) in map {
                encode(&Value::String(key.clone()), out);
                encode(value, out);
            }
        }
        Value::Array(values) => {
            head(11, values.len(), out);
            values.iter().for_each(|value| encode(value, out));
        }
        other => unreachable!("no test uses {other}"),
    }
}
