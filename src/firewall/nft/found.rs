//! What of our table, chain, sets and rules the kernel has.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::names::SetId;
use super::ruleset::{CHAIN, MARK, NEIGHBOURS, PRIORITY};
use super::socket::Socket;
use super::uapi::*;
use super::wire::Attrs;
use crate::firewall::{Counters, Set};

/// What the kernel has under our table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No such table.
    Nothing,
    /// A table that somebody else made.
    Foreign,
    /// Ours, as it should be, with these sets.
    Sound(Vec<SetId>),
    /// Ours, the sets are fine, but chain or rules are missing, doubled or asleep.
    RulesDamaged(Vec<SetId>),
    /// Ours, but it has to be made anew.
    Unusable,
}

/// A rule of ours, as its comment names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Neighbours,
    Drop(SetId),
}

/// A chain as found: absent, wrong, or right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChainFound {
    Absent,
    Wrong,
    Right,
}

/// The comment in user data, whatever stands around it.
fn comment_in(mut userdata: &[u8], kind: u8) -> Option<&str> {
    while let [found, length, rest @ ..] = userdata {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *found == kind {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        userdata = next;
    }
    None
}

/// Number of the ruleset's generation: it goes up with every change by anybody.
pub fn generation(socket: &mut Socket) -> Result<u32, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETGEN, 0);
    let mut id = None;
    socket.ask(&writer, |message| {
        id = id.or(message.attrs().be32(NFTA_GEN_ID));
    })?;
    id.ok_or(Errno::ENOMSG)
}

/// Looks at what there is under our table's name.
pub fn inspect(socket: &mut Socket, table: &str) -> Result<Found, Errno> {
    let Some(TableFound {
        marked,
        asleep,
        used,
    }) = table_found(socket, table)?
    else {
        return Ok(Found::Nothing);
    };
    let sets = sets_found(socket, table)?;
    let chain = chain_found(socket, table)?;
    // Kernels before 5.9 keep no comment on a table; those on sets are older.
    if !marked && !sets.values().any(|set| set.marked) {
        // An empty table that somebody made ready for us is welcome.
        return Ok(if used == 0 {
            Found::Nothing
        } else {
            Found::Foreign
        });
    }
    let mut ids = Vec::new();
    for (name, set) in &sets {
        match SetId::parse(name) {
            Some(id) if set.fits(id) => ids.push(id),
            _ => return Ok(Found::Unusable),
        }
    }
    if chain == ChainFound::Wrong {
        return Ok(Found::Unusable);
    }
    let mut rules = rules_found(socket, table)?;
    rules.sort();
    let drops = ids.iter().map(|id| Some(Rule::Drop(*id)));
    let mut expected: Vec<_> = drops.chain([Some(Rule::Neighbours)]).collect();
    expected.sort();
    let complete = SetId::base().all(|id| ids.contains(&id));
    if complete && !asleep && chain == ChainFound::Right && rules == expected {
        Ok(Found::Sound(ids))
    } else {
        Ok(Found::RulesDamaged(ids))
    }
}

/// What matters of the table that was found.
#[derive(Debug)]
struct TableFound {
    marked: bool,
    asleep: bool,
    used: u32,
}

/// The table, `None` where there is no such one.
fn table_found(socket: &mut Socket, table: &str) -> Result<Option<TableFound>, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETTABLE, 0);
    writer.text(NFTA_TABLE_NAME, table);
    let mut found = None;
    let answer = socket.ask(&writer, |message| {
        let attrs = message.attrs();
        let userdata = attrs.find(NFTA_TABLE_USERDATA).unwrap_or_default();
        let flags = attrs.be32(NFTA_TABLE_FLAGS).unwrap_or(0);
        found = Some(TableFound {
            marked: comment_in(userdata, UDATA_COMMENT) == Some(MARK),
            asleep: flags & NFT_TABLE_F_DORMANT != 0,
            used: attrs.be32(NFTA_TABLE_USE).unwrap_or(u32::MAX),
        });
    });
    match answer {
        Err(Errno::ENOENT) => Ok(None),
        other => other.map(|()| found),
    }
}

fn chain_found(socket: &mut Socket, table: &str) -> Result<ChainFound, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETCHAIN, 0);
    writer.text(NFTA_CHAIN_TABLE, table);
    writer.text(NFTA_CHAIN_NAME, CHAIN);
    let mut found = ChainFound::Wrong;
    let answer = socket.ask(&writer, |message| {
        let hook = message.attrs().inside(NFTA_CHAIN_HOOK);
        if message.attrs().be32(NFTA_CHAIN_POLICY) == Some(NF_ACCEPT)
            && hook.be32(NFTA_HOOK_HOOKNUM) == Some(NF_INET_LOCAL_IN)
            && hook.be32(NFTA_HOOK_PRIORITY) == Some(PRIORITY as u32)
        {
            found = ChainFound::Right;
        }
    });
    match answer {
        Err(Errno::ENOENT) => Ok(ChainFound::Absent),
        other => other.map(|()| found),
    }
}

/// What matters of a set that was found.
#[derive(Debug)]
struct SetFound {
    marked: bool,
    flags: u32,
    key_length: u32,
}

impl SetFound {
    fn fits(&self, id: SetId) -> bool {
        self.flags & !NFT_SET_EXPR == NFT_SET_TIMEOUT
            && self.key_length == u32::from(id.address_bits()) / 8
    }
}

fn sets_found(socket: &mut Socket, table: &str) -> Result<BTreeMap<String, SetFound>, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETSET, NLM_F_DUMP);
    writer.text(NFTA_SET_TABLE, table);
    let mut found = BTreeMap::new();
    socket.ask(&writer, |message| {
        let attrs = message.attrs();
        let userdata = attrs.find(NFTA_SET_USERDATA).unwrap_or_default();
        if let (Some(of), Some(name)) = (attrs.text(NFTA_SET_TABLE), attrs.text(NFTA_SET_NAME)) {
            if of == table {
                let set = SetFound {
                    marked: comment_in(userdata, UDATA_SET_COMMENT) == Some(MARK),
                    flags: attrs.be32(NFTA_SET_FLAGS).unwrap_or(0),
                    key_length: attrs.be32(NFTA_SET_KEY_LEN).unwrap_or(0),
                };
                found.insert(name.to_owned(), set);
            }
        }
    })?;
    Ok(found)
}

/// Calls `each` with the comment and the expressions of every rule in our chain.
fn each_rule(
    socket: &mut Socket,
    table: &str,
    mut each: impl FnMut(Option<Rule>, Attrs<'_>),
) -> Result<(), Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETRULE, NLM_F_DUMP);
    writer.text(NFTA_RULE_TABLE, table);
    socket.ask(&writer, |message| {
        let attrs = message.attrs();
        // Another chain in our table is somebody else's: it is let alone.
        let chain = attrs.text(NFTA_RULE_CHAIN);
        if attrs.text(NFTA_RULE_TABLE) == Some(table) && chain == Some(CHAIN) {
            let rule = attrs
                .find(NFTA_RULE_USERDATA)
                .and_then(|userdata| comment_in(userdata, UDATA_COMMENT))
                .and_then(|text| text.strip_prefix(MARK))
                .and_then(|name| match name.trim_start() {
                    NEIGHBOURS => Some(Rule::Neighbours),
                    name => SetId::parse(name).map(Rule::Drop),
                });
            each(rule, attrs.inside(NFTA_RULE_EXPRESSIONS));
        }
    })
}

/// The rules of our chain, `None` for one that we did not make.
fn rules_found(socket: &mut Socket, table: &str) -> Result<Vec<Option<Rule>>, Errno> {
    let mut found = Vec::new();
    each_rule(socket, table, |rule, _| found.push(rule))?;
    Ok(found)
}

/// Sums the counters of our rules.
pub fn counters(socket: &mut Socket, table: &str) -> Result<Counters, Errno> {
    let mut sum = Counters::default();
    each_rule(socket, table, |rule, expressions| {
        let counter = expressions
            .map(|(_, expression)| Attrs(expression))
            .find(|expression| expression.text(NFTA_EXPR_NAME) == Some("counter"));
        let (Some(Rule::Drop(id)), Some(counter)) = (rule, counter) else {
            return;
        };
        let values = counter.inside(NFTA_EXPR_DATA);
        let packets = values.be64(NFTA_COUNTER_PACKETS).unwrap_or(0);
        let bytes = values.be64(NFTA_COUNTER_BYTES).unwrap_or(0);
        match id.set {
            Set::Feed => {
                sum.feed_packets += packets;
                sum.feed_bytes += bytes;
            }
            Set::Local => {
                sum.local_packets += packets;
                sum.local_bytes += bytes;
            }
        }
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::super::ruleset::comment;
    use super::*;

    #[test]
    fn comments_are_found_among_other_data() {
        let mut userdata = vec![UDATA_SET_KEYBYTEORDER, 4, 2, 0, 0, 0];
        userdata.extend(comment(UDATA_SET_COMMENT, MARK));
        assert_eq!(comment_in(&userdata, UDATA_SET_COMMENT), Some(MARK));
        for cut in 0..userdata.len() {
            assert_eq!(comment_in(&userdata[..cut], UDATA_SET_COMMENT), None);
        }
    }
}
