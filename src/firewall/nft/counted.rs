//! What the kernel dropped of each source, if it is asked to count that.
//!
//! The rules put each source that they drop into a set of its own, with a counter ([`super::ruleset`]). Such
//! a set holds only sources that send now, so it is small and may be listed as a whole.

use std::collections::HashMap;
use std::net::IpAddr;

use nix::errno::Errno;

use super::found::packets;
use super::names::Family;
use super::socket::Socket;
use super::uapi::*;
use super::wire::Attrs;

/// The counters as they were last read. A counter that is lower now was reset.
#[derive(Debug, Default)]
pub struct Counted(HashMap<IpAddr, u64>);

impl Counted {
    /// Takes what was read; returns what came since the reading before.
    pub fn take(&mut self, now: HashMap<IpAddr, u64>) -> Vec<(IpAddr, u64)> {
        let before = std::mem::replace(&mut self.0, now);
        self.0
            .iter()
            .map(|(source, packets)| {
                let known = before.get(source).copied().unwrap_or(0);
                (*source, packets.checked_sub(known).unwrap_or(*packets))
            })
            .filter(|(_, packets)| *packets > 0)
            .collect()
    }
}

/// Reads the counters of all sources.
pub fn read(socket: &mut Socket, table: &str) -> Result<HashMap<IpAddr, u64>, Errno> {
    let mut found = HashMap::new();
    for family in Family::BOTH {
        let mut writer = socket.writer();
        writer.message(NFT_MSG_GETSETELEM, NLM_F_DUMP);
        writer.text(NFTA_SET_ELEM_LIST_TABLE, table);
        writer.text(NFTA_SET_ELEM_LIST_SET, family.counted());
        let answer = socket.ask(&writer, |message| {
            let elements = message.attrs().inside(NFTA_SET_ELEM_LIST_ELEMENTS);
            found.extend(elements.filter_map(|(_, element)| counter_of(Attrs(element))));
        });
        match answer {
            // The list changed while it was read: what was read is right, what was passed over comes
            // with the next reading.
            Ok(()) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The source and the packets of one element.
fn counter_of(element: Attrs<'_>) -> Option<(IpAddr, u64)> {
    let key = element.inside(NFTA_SET_ELEM_KEY).find(NFTA_DATA_VALUE)?;
    let source = match key.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(key).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(key).ok()?),
    };
    // One expression as it stands, or a list of them on kernels that have lists.
    let expression = element.find(NFTA_SET_ELEM_EXPR)?;
    Some((
        source,
        packets(std::iter::once((NFTA_LIST_ELEM, expression))),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(counters: &[(&str, u64)]) -> HashMap<IpAddr, u64> {
        counters
            .iter()
            .map(|(source, packets)| (source.parse().unwrap(), *packets))
            .collect()
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut counted = Counted::default();
        let mut news = |counters: &[(&str, u64)]| {
            let mut news = counted.take(read(counters));
            news.sort();
            news.into_iter()
                .map(|(source, packets)| (source.to_string(), packets))
                .collect::<Vec<_>>()
        };
        let one = |packets| vec![("192.0.2.1".to_owned(), packets)];
        assert_eq!(news(&[("192.0.2.1", 5)]), one(5));
        assert_eq!(news(&[("192.0.2.1", 5), ("2001:db8::1", 0)]), []);
        assert_eq!(news(&[("192.0.2.1", 12)]), one(7));
        // The counter was reset, with the table or after its pause.
        assert_eq!(news(&[("192.0.2.1", 3)]), one(3));
        assert_eq!(news(&[]), []);
        assert_eq!(news(&[("192.0.2.1", 3)]), one(3));
    }
}
