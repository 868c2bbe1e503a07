//! What of our table, chains, sets and rules the kernel has.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::hook::Hook;
use super::names::{Family, SetId};
use super::owner::Owner;
use super::ruleset::{Made, Rule, Shape, BANNED, IPV6, MARK, PORTS};
use super::sets::{set_flags, COUNTED_FLAGS};
use super::socket::Socket;
use super::uapi::*;
use super::wire::Attrs;

/// What the kernel has under our table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No such table.
    Nothing,
    /// A table that somebody else made.
    Foreign,
    /// A table with our mark.
    Ours(Ours),
}

/// A table with our mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// The process that it belongs to, and the handle of the rule that names it.
    pub owner: Option<(Owner, u64)>,
    /// How it is.
    pub state: State,
}

/// How a table of ours is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it should be, made of this.
    Sound(Made),
    /// The sets are fine, but chains or rules are missing, doubled or asleep.
    RulesDamaged(BTreeSet<SetId>),
    /// It has to be made from nothing: damaged, of an earlier version, or of other parameters.
    Unusable,
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

/// Names of all tables of our family that bear our mark.
pub fn marked_tables(socket: &mut Socket) -> Result<Vec<String>, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETTABLE, NLM_F_DUMP);
    let mut names = Vec::new();
    socket.ask(&writer, |message| {
        let attrs = message.attrs();
        let userdata = attrs.find(NFTA_TABLE_USERDATA).unwrap_or_default();
        if comment_in(userdata, UDATA_COMMENT) == Some(MARK) {
            names.extend(attrs.text(NFTA_TABLE_NAME).map(str::to_owned));
        }
    })?;
    Ok(names)
}

/// Looks at what there is under our table's name.
pub fn inspect(socket: &mut Socket, table: &str, shape: &Shape) -> Result<Found, Errno> {
    let Some(found) = table_found(socket, table)? else {
        return Ok(Found::Nothing);
    };
    let sets = sets_found(socket, table)?;
    // Kernels before 5.9 keep no comment on a table; those on sets are older.
    if !found.marked && !sets.values().any(|set| set.marked) {
        // An empty table that somebody made ready for us is welcome.
        return Ok(match found.used {
            0 => Found::Nothing,
            _ => Found::Foreign,
        });
    }
    let rules = rules_found(socket, table)?;
    let state = state(socket, table, shape, &sets, &rules, found.asleep)?;
    let owner = rules
        .iter()
        .find_map(|rule| Some((rule.owner?, rule.handle)));
    Ok(Found::Ours(Ours { owner, state }))
}

/// Compares what was found with what should be there.
fn state(
    socket: &mut Socket,
    table: &str,
    shape: &Shape,
    sets: &BTreeMap<String, SetFound>,
    rules: &[RuleFound],
    asleep: bool,
) -> Result<State, Errno> {
    let mut ids = BTreeSet::new();
    let mut ports = false;
    let mut counted = 0;
    for (name, set) in sets {
        match SetId::parse(name) {
            Some(id) if set.fits(id) => {
                ids.insert(id);
            }
            None if name == PORTS && shape.ports.is_some() => ports = true,
            None if is_counted(name) && set.flags == COUNTED_FLAGS => counted += 1,
            _ => return Ok(State::Unusable),
        }
    }
    // A base chain at another place, as after a change of the parameter.
    let elsewhere = Hook::ALL.iter().filter(|hook| **hook != shape.hook);
    for hook in elsewhere {
        if chain_found(socket, table, hook)? != ChainFound::Absent {
            return Ok(State::Unusable);
        }
    }
    let chain = chain_found(socket, table, &shape.hook)?;
    let of_chain = |chain: &str| -> Vec<Option<Rule>> {
        let found = rules.iter().filter(|rule| rule.chain == chain);
        found.map(|rule| rule.rule.clone()).collect()
    };
    let banned = of_chain(BANNED);
    let counted_wanted = if shape.counts { Family::BOTH.len() } else { 0 };
    let wanted: Vec<_> = shape.banned_rules().into_iter().map(Some).collect();
    if chain == ChainFound::Wrong
        || ports != shape.ports.is_some()
        || banned != wanted
        || counted != counted_wanted
    {
        return Ok(State::Unusable);
    }
    let made = Made {
        ipv6: of_chain(shape.hook.chain).contains(&Some(Rule::Ipv6)),
        sets: ids,
    };
    let sound_rules = [shape.hook.chain, IPV6].into_iter().all(|chain| {
        let expected = shape.rules_of(chain, &made);
        let mut expected: Vec<_> = expected.into_iter().map(Some).collect();
        let mut found = of_chain(chain);
        expected.sort();
        found.sort();
        found == expected
    });
    let complete = SetId::base().all(|id| made.sets.contains(&id));
    if complete && !asleep && chain == ChainFound::Right && sound_rules {
        Ok(State::Sound(made))
    } else {
        Ok(State::RulesDamaged(made.sets))
    }
}

/// True for the name of a set of counted sources.
fn is_counted(name: &str) -> bool {
    Family::BOTH.iter().any(|family| family.counted() == name)
}

/// What matters of the table that was found.
#[derive(Debug)]
struct TableFound {
    marked: bool,
    asleep: bool,
    used: u32,
}

/// The table, `None` if there is no such one.
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

/// A base chain as found: absent, wrong, or right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChainFound {
    Absent,
    Wrong,
    Right,
}

fn chain_found(socket: &mut Socket, table: &str, hook: &Hook) -> Result<ChainFound, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETCHAIN, 0);
    writer.text(NFTA_CHAIN_TABLE, table);
    writer.text(NFTA_CHAIN_NAME, hook.chain);
    let mut found = ChainFound::Wrong;
    let answer = socket.ask(&writer, |message| {
        let place = message.attrs().inside(NFTA_CHAIN_HOOK);
        if message.attrs().be32(NFTA_CHAIN_POLICY) == Some(NF_ACCEPT)
            && place.be32(NFTA_HOOK_HOOKNUM) == Some(hook.number)
            && place.be32(NFTA_HOOK_PRIORITY) == Some(hook.priority as u32)
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
        self.flags == set_flags(id) && self.key_length == id.family().bytes()
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

/// What matters of a rule that was found.
#[derive(Debug)]
struct RuleFound {
    chain: String,
    /// Which of ours; `None` for one that we did not make.
    rule: Option<Rule>,
    owner: Option<Owner>,
    handle: u64,
    packets: u64,
}

/// The rules of our table. Those of chains that are not ours are left out.
fn rules_found(socket: &mut Socket, table: &str) -> Result<Vec<RuleFound>, Errno> {
    let mut writer = socket.writer();
    writer.message(NFT_MSG_GETRULE, NLM_F_DUMP);
    writer.text(NFTA_RULE_TABLE, table);
    let mut found = Vec::new();
    socket.ask(&writer, |message| {
        let attrs = message.attrs();
        let chain = attrs.text(NFTA_RULE_CHAIN).unwrap_or_default();
        let of_sets = chain == IPV6 || Hook::ALL.iter().any(|hook| hook.chain == chain);
        if attrs.text(NFTA_RULE_TABLE) != Some(table) || !(of_sets || chain == BANNED) {
            return;
        }
        let comment = attrs
            .find(NFTA_RULE_USERDATA)
            .and_then(|userdata| comment_in(userdata, UDATA_COMMENT))
            .unwrap_or_default();
        let (rule, owner) = match Rule::parse(comment) {
            Some((rule, owner)) if of_sets => (Some(rule), owner),
            _ if of_sets => (None, None),
            _ => (Rule::parse_banned(comment), None),
        };
        found.push(RuleFound {
            chain: chain.to_owned(),
            rule,
            owner,
            handle: attrs.be64(NFTA_RULE_HANDLE).unwrap_or(0),
            packets: packets(attrs.inside(NFTA_RULE_EXPRESSIONS)),
        });
    })?;
    Ok(found)
}

/// What the counter in a rule says.
pub fn packets<'a>(mut expressions: impl Iterator<Item = (u16, &'a [u8])>) -> u64 {
    expressions
        .find_map(|(_, expression)| {
            let expression = Attrs(expression);
            let name = expression.text(NFTA_EXPR_NAME)?;
            let counter = || expression.inside(NFTA_EXPR_DATA).be64(NFTA_COUNTER_PACKETS);
            (name == "counter").then(counter)?
        })
        .unwrap_or(0)
}

/// Packets that our rules dropped since they were made.
pub fn dropped(socket: &mut Socket, table: &str) -> Result<u64, Errno> {
    let rules = rules_found(socket, table)?;
    let ours = rules.iter().filter(|rule| rule.rule.is_some());
    Ok(ours.map(|rule| rule.packets).sum())
}

#[cfg(test)]
mod tests {
    use super::super::expressions::comment;
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
