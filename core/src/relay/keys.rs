//! The keys between nodes, derived from the cluster secret.
//!
//! ```text
//!  key = HKDF-SHA256(secret; no salt; info), 16 bytes, for AES-128-GCM
//!  info = "antiphon relay" | version (1) | sender | receiver | sending worker (1)
//!  sender, receiver = length of the node id (2) | node id | start time in Unix µs (8)
//! ```
//!
//! Each direction of a pair of nodes, each of the sender's workers and each start of either has a key of its own, so no
//! two counters run under one key and nothing sealed for an earlier run opens (RFC 5869; section 3.2 on `info`).

use aws_lc_rs::hkdf;

use super::NodeInfo;
use crate::{gateway::Cipher, ids::WorkerIndex, seal::Key};

const LABEL: &[u8] = b"antiphon relay";
const CIPHER: Cipher = Cipher::Aes128Gcm;

/// The cluster secret, ready to derive keys from.
pub(super) struct Secret(hkdf::Prk);

struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        CIPHER.key_bytes()
    }
}

impl Secret {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret))
    }

    /// What seals from a worker of one node to another node.
    pub(super) fn key(&self, version: u8, sender: &NodeInfo, receiver: &NodeInfo, worker: WorkerIndex) -> Key {
        let mut bytes = [0; CIPHER.key_bytes()];
        self.derive(version, sender, receiver, worker, &mut bytes);
        Key::new(CIPHER, &bytes).expect("as many bytes as the cipher takes")
    }

    fn derive(&self, version: u8, sender: &NodeInfo, receiver: &NodeInfo, worker: WorkerIndex, out: &mut [u8]) {
        let mut info = LABEL.to_vec();
        info.push(version);
        for node in [sender, receiver] {
            let id = node.id.0.as_bytes();
            info.extend(u16::try_from(id.len()).unwrap_or(u16::MAX).to_be_bytes());
            info.extend(id);
            info.extend(node.started_at_us.to_be_bytes());
        }
        info.push(worker.0.to_be_bytes()[1]);
        let info = [info.as_slice()];
        let expanded = self.0.expand(&info, Length).and_then(|okm| okm.fill(out));
        expanded.expect("HKDF gives up to 255 hashes' worth");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{NodeId, NodeNumber},
        relay::Versions,
    };

    fn node(id: &str, started_at_us: u64) -> NodeInfo {
        NodeInfo {
            id: NodeId(id.to_owned()),
            number: NodeNumber(1),
            started_at_us,
            address: ([127, 0, 0, 1], 1).into(),
            workers: 1,
            versions: Versions::SPOKEN,
            capacity: 1,
            serving: true,
        }
    }

    fn derived(version: u8, sender: &NodeInfo, receiver: &NodeInfo, worker: u16) -> [u8; 16] {
        let mut bytes = [0; 16];
        Secret::new(b"a secret of the cluster").derive(version, sender, receiver, WorkerIndex(worker), &mut bytes);
        bytes
    }

    const GOLDEN: [u8; 16] = 0x5571b491284e6e6e76a7f1d5f65de8c9_u128.to_be_bytes();

    /// Made with Python's `hmac` from RFC 5869 and the text above.
    #[test]
    fn the_key_is_the_described_one() {
        let key = derived(1, &node("a", 1_000), &node("node-b", 2_000), 3);
        assert_eq!(key, GOLDEN);
    }

    #[test]
    fn each_direction_worker_start_and_version_has_its_own() {
        let (a, b) = (node("a", 1), node("b", 2));
        let keys = [
            derived(1, &a, &b, 0),
            derived(1, &b, &a, 0),
            derived(1, &a, &b, 1),
            derived(2, &a, &b, 0),
            derived(1, &node("a", 3), &b, 0),
            derived(1, &a, &node("b", 3), 0),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
    }
}
