//! The handshakes under way: so many at most, each for so long.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify};

/// A handshake, with the wait for a place among the connections, must be done within this time: two round trips on the
/// worst of networks.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at once. One more ends the oldest: honest ones take milliseconds, so that it is peers who stall who give
/// way, and a flood of them does not keep anybody out.
const HANDSHAKES_MAX: usize = 1_024;

/// The first byte of a TLS connection: the content type of a handshake's record (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The handshakes under way, oldest first.
#[derive(Default)]
pub(crate) struct Handshakes {
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    next: u64,
    ends: BTreeMap<u64, Arc<Notify>>,
}

impl Handshakes {
    /// Begins one; the oldest is told to end where there are as many as there may be.
    pub(super) fn begin(&self) -> Handshake<'_> {
        let end = Arc::new(Notify::new());
        let mut under_way = self.under_way.lock();
        if under_way.ends.len() >= HANDSHAKES_MAX
            && let Some((_, oldest)) = under_way.ends.pop_first()
        {
            oldest.notify_one();
        }
        let number = under_way.next;
        under_way.next += 1;
        under_way.ends.insert(number, Arc::clone(&end));
        Handshake { of: self, number, end }
    }
}

/// One that is under way until this is dropped.
pub(crate) struct Handshake<'a> {
    of: &'a Handshakes,
    number: u64,
    end: Arc<Notify>,
}

impl Handshake<'_> {
    /// Returns when it has to end for the sake of a newer one.
    pub(crate) async fn given_up(&self) {
        self.end.notified().await;
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.of.under_way.lock().ends.remove(&self.number);
    }
}

/// Whether the first byte that a peer sends begins a TLS connection; waits for it, and leaves it there.
pub(crate) async fn speaks_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE_RECORD]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_gives_way() {
        let handshakes = Handshakes::default();
        let mut under_way: Vec<_> = (0..HANDSHAKES_MAX).map(|_| handshakes.begin()).collect();
        let is_given_up = async |handshake: &Handshake<'_>| {
            tokio::time::timeout(Duration::from_millis(10), handshake.given_up()).await.is_ok()
        };
        // One that is done makes room.
        drop(under_way.remove(1));
        let one_more = handshakes.begin();
        assert!(!is_given_up(&under_way[0]).await);
        let another = handshakes.begin();
        assert!(is_given_up(&under_way[0]).await);
        for other in [&under_way[1], &one_more, &another] {
            assert!(!is_given_up(other).await);
        }
        drop(under_way);
        assert_eq!(handshakes.under_way.lock().ends.len(), 2, "nothing is left behind");
    }
}
