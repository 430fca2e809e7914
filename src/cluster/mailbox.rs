//! What a node is told by the others: a bounded queue that says so when it lost something.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::mpsc;

/// The sending side of such a queue.
#[derive(Debug)]
pub(super) struct Mailbox<N> {
    sender: mpsc::Sender<N>,
    /// What says that something was lost.
    lost: N,
    /// It waits for room already.
    is_losing: Arc<AtomicBool>,
}

impl<N: Clone + Send + 'static> Mailbox<N> {
    pub(super) fn new(sender: mpsc::Sender<N>, lost: N) -> Self {
        Self { sender, lost, is_losing: Arc::default() }
    }

    /// False when there was no room, which the node will hear of.
    #[must_use]
    pub(super) fn send(&self, notice: N) -> bool {
        let is_full = matches!(self.sender.try_send(notice), Err(mpsc::error::TrySendError::Full(_)));
        if is_full {
            self.overflow();
        }
        !is_full
    }

    /// Likewise of what nobody needs to hear of when it is lost.
    pub(super) fn offer(&self, notice: N) {
        let _ = self.sender.try_send(notice);
    }

    /// Says that something was lost as soon as there is room, before whatever comes then.
    pub(super) fn overflow(&self) {
        if self.is_losing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (sender, lost, is_losing) = (self.sender.clone(), self.lost.clone(), Arc::clone(&self.is_losing));
        tokio::spawn(async move {
            if let Ok(room) = sender.reserve().await {
                // What is lost from now on is lost after this, and said again.
                is_losing.store(false, Ordering::Release);
                room.send(lost);
            }
        });
    }
}
