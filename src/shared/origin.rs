//! Who banned an address: each origin has a table of its own.

/// Who banned an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Origin {
    /// The APIBAN service lists it.
    Feed,
    /// The script of this server or its operator banned it.
    Local,
    /// Another node of the cluster banned it.
    Peer,
}

impl Origin {
    /// Every origin, in the order in which a check asks their tables.
    pub const ALL: [Origin; 3] = [Origin::Feed, Origin::Local, Origin::Peer];

    /// The name in RPC, in `$apiban(source)` and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Feed => "feed",
            Origin::Local => "local",
            Origin::Peer => "peer",
        }
    }

    /// The origin with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_origin() {
        for origin in Origin::ALL {
            assert_eq!(Origin::from_name(origin.name()), Some(origin));
        }
        assert_eq!(Origin::from_name("all"), None);
    }
}
