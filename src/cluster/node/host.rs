//! What a node works on: the tables around it, the bus and the log.

use crate::address::Subnet;
use crate::clock::UnixSeconds;
use crate::log::Level;

/// A ban of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnBan {
    /// When it ends.
    pub end: UnixSeconds,
    /// When it was made.
    pub since: UnixSeconds,
    /// Why.
    pub reason: String,
}

/// What became of another node's ban here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is in force.
    Yes,
    /// Trust, or a rule on what may be banned, speaks against it.
    Refused,
    /// The table is full.
    Full,
}

/// What the node works on.
pub trait Host {
    /// Sends a message to a node. Nothing is said about its arrival.
    fn send(&mut self, uri: &str, message: &[u8]);
    /// The ban that this node made on exactly this address or prefix.
    fn own(&self, subnet: Subnet) -> Option<OwnBan>;
    /// Shows all of them: subnet, end, since.
    fn each_own(&self, visit: &mut dyn FnMut(Subnet, UnixSeconds, UnixSeconds));
    /// True if another node's ban on it is in force here.
    fn holds(&self, subnet: Subnet) -> bool;
    /// Puts a ban of the node `uri` in force until `end`, or longer if it is already.
    fn place(&mut self, uri: &str, subnet: Subnet, end: UnixSeconds, reason: &str) -> Placed;
    /// Another node's ban ends earlier than it did.
    fn shorten(&mut self, subnet: Subnet, end: UnixSeconds);
    /// No other node bans it any more.
    fn lift(&mut self, subnet: Subnet);
    /// Another node lifted this node's own ban.
    fn lift_own(&mut self, subnet: Subnet);
    /// Shows the list as this node has it: subnet and end.
    fn each_listed(&self, visit: &mut dyn FnMut(Subnet, UnixSeconds));
    /// Takes entries of the list that another node fetched: subnet and end.
    fn list(&mut self, entries: &[(Subnet, UnixSeconds)]);
    /// Removes from the list what `keep` does not hold; returns how many went.
    fn keep_listed(&mut self, keep: &dyn Fn(Subnet) -> bool) -> usize;
    /// Writes a line for the operator.
    fn log(&mut self, level: Level, text: &str);
}
