//! The secret of the cluster and what is derived from it.
//!
//! Every message carries a MAC under a key that is derived from a secret which all nodes share. Several secrets
//! may be valid at once, and a secret is replaced without an outage: the first signs, all verify.

use ring::{hkdf, hmac};
use subtle::ConstantTimeEq;

/// Bytes of a MAC: HMAC-SHA256 cut to 128 bits, as RFC 2104 section 5 allows (half of the hash at least).
pub const MAC: usize = 16;
/// Shortest secret in bytes. 16 random characters are beyond guessing.
pub const SHORTEST_SECRET: usize = 16;
/// More secrets than any rotation needs.
pub const MOST_SECRETS: usize = 8;

/// Separates the keys of this protocol from any other use of the same secret.
const SALT: &[u8] = b"apiban cluster v1";

/// The keys of the cluster.
pub struct Keyring {
    keys: Vec<Entry>,
}

struct Entry {
    id: u8,
    key: hmac::Key,
}

impl Keyring {
    /// Derives a key from each secret; `None` without any. The first one signs.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Option<Keyring> {
        let keys: Vec<Entry> = secrets
            .into_iter()
            .take(MOST_SECRETS)
            .map(Entry::derive)
            .collect();
        (!keys.is_empty()).then_some(Keyring { keys })
    }

    /// The number of the signing key, which stands in each message: it saves trying all keys, and is no secret.
    pub fn signing_id(&self) -> u8 {
        self.keys.first().map_or(0, |entry| entry.id)
    }

    /// The MAC of `bytes` under the signing key.
    pub fn sign(&self, bytes: &[u8]) -> [u8; MAC] {
        let mut mac = [0; MAC];
        if let Some(entry) = self.keys.first() {
            mac.copy_from_slice(&hmac::sign(&entry.key, bytes).as_ref()[..MAC]);
        }
        mac
    }

    /// True if `mac` is that of `bytes` under a key with this number. The time does not depend on where they differ.
    pub fn verify(&self, id: u8, bytes: &[u8], mac: &[u8]) -> bool {
        self.keys
            .iter()
            .filter(|entry| entry.id == id)
            .any(|entry| bool::from(hmac::sign(&entry.key, bytes).as_ref()[..MAC].ct_eq(mac)))
    }
}

impl Entry {
    fn derive(secret: &[u8]) -> Entry {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret);
        let mut id = [0];
        // One byte is far below the longest output of HKDF, so neither call can fail.
        if let Ok(okm) = root.expand(&[b"key number"], Length(1)) {
            let _ = okm.fill(&mut id);
        }
        let mut bytes = [0; 32];
        if let Ok(okm) = root.expand(&[b"message key"], Length(32)) {
            let _ = okm.fill(&mut bytes);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        zeroize::Zeroize::zeroize(&mut bytes);
        Entry { id: id[0], key }
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Says whether two nodes fetch the same list with the same key; never the key itself: 64 bits derived from it.
pub fn list_fingerprint(source: &str, api_key: &[u8]) -> u64 {
    let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(api_key);
    let mut bytes = [0; 8];
    if let Ok(okm) = root.expand(&[b"list", source.as_bytes()], Length(8)) {
        let _ = okm.fill(&mut bytes);
    }
    u64::from_be_bytes(bytes)
}

/// The identity of a node: 64 bits of a hash of its URI, the same after a restart.
pub fn node_id(uri: &str) -> u64 {
    let hash = ring::digest::digest(&ring::digest::SHA256, uri.as_bytes());
    hash.as_ref()
        .iter()
        .take(8)
        .fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signs_and_all_verify() {
        let (old, new) = (
            b"an old secret of 26 bytes".as_slice(),
            b"a new secret of the team".as_slice(),
        );
        let before = Keyring::new([old]).unwrap();
        let during = Keyring::new([new, old]).unwrap();
        let after = Keyring::new([new]).unwrap();
        let signed = |ring: &Keyring| (ring.signing_id(), ring.sign(b"text"));
        let accepts = |ring: &Keyring, (id, mac): (u8, [u8; MAC])| ring.verify(id, b"text", &mac);
        assert!(accepts(&during, signed(&before)) && accepts(&after, signed(&during)));
        assert!(!accepts(&before, signed(&after)));
        let (id, mut mac) = signed(&before);
        mac[MAC - 1] ^= 1;
        assert!(!before.verify(id, b"text", &mac) && !before.verify(id, b"text", &mac[..4]));
        assert!(Keyring::new([]).is_none());
    }

    #[test]
    fn a_fingerprint_depends_on_list_and_key() {
        let one = list_fingerprint("list", b"key");
        assert_eq!(one, list_fingerprint("list", b"key"));
        assert_ne!(one, list_fingerprint("list", b"other"));
        assert_ne!(one, list_fingerprint("other", b"key"));
        assert_ne!(node_id("sip:a"), node_id("sip:b"));
    }
}
