//! What goes on by itself: finishing what a node began and did not live to tell, and forgetting what has had its time.

use antiphon_core::ids::{ChannelId, MessageId};
use tokio::time::{MissedTickBehavior, interval};

use super::Chat;
use crate::{
    store::{Scope, StoreError},
    telemetry::metrics::metrics,
};

/// Scopes looked at in one round; the rest comes with the next.
const AT_ONCE: u32 = 1_000;

/// A process that has not said for so long that it lives is dead: far more than a database is usually away, or clocks of
/// nodes differ.
const DEAD_AFTER: time::Duration = time::Duration::minutes(10);

/// Where the look at what has changed has got to. What has changed is looked at twice, since a transaction with a lower
/// number may be stored after one with a higher.
#[derive(Debug)]
struct Look {
    /// Everything up to this number was looked at in the round before the last.
    settled: MessageId,
    /// In the last.
    seen: MessageId,
}

impl Look {
    /// The next, after one that has looked at everything up to `last`. That may be less than the one before has seen, where more had
    /// changed than is looked at at once: the rest is not settled by then.
    fn after(&self, last: MessageId) -> Self {
        Self { settled: self.seen.min(last), seen: last }
    }
}

impl Chat {
    /// Looks now and then, for ever, what is stored and not told here: another node may have died in between, or could not
    /// say so.
    pub(super) async fn look(self) {
        let mut ticks = interval(self.inner.config.look_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = None;
        loop {
            ticks.tick().await;
            if let Err(error) = self.look_once(&mut look).await {
                tracing::debug!(%error, "what is stored was not looked at");
            }
            self.forget_pairs();
            if let Some(typing) = &self.inner.typing {
                typing.sweep();
            }
        }
    }

    async fn look_once(&self, look: &mut Option<Look>) -> Result<(), StoreError> {
        let Some(look) = look else {
            // What was there before anybody came here is history.
            let newest = self.store().newest_of_all().await?;
            *look = Some(Look { settled: newest, seen: newest });
            return Ok(());
        };
        let changed = self.store().changed_scopes(look.settled, AT_ONCE).await?;
        let last = changed.last().map_or(look.seen, |(_, newest)| *newest);
        let mut rooms: Vec<(ChannelId, MessageId)> = Vec::new();
        for (scope, newest) in changed {
            match scope {
                Scope::Room(channel) => rooms.push((channel, newest)),
                Scope::Pair(..) => {
                    let told = self.told_pair(scope).await.unwrap_or(look.settled);
                    self.tell_pair(scope, told, newest, &[]).await;
                }
            }
        }
        self.rooms().finish_chats(&rooms).await;
        *look = look.after(last);
        Ok(())
    }

    /// Deletes messages that their channel keeps no longer, and forgets processes that are dead. To be called every minute or
    /// so; nodes take turns.
    pub async fn sweep(&self) {
        let now = time::OffsetDateTime::now_utc();
        if let Err(error) = self.store().settle_presence(now - DEAD_AFTER).await {
            tracing::warn!(%error, "who was there through nodes that died was not settled");
        }
        loop {
            match self.store().expire_messages(time::OffsetDateTime::now_utc()).await {
                Ok(expired) => {
                    metrics().chat.expired.increment(expired.count);
                    if !expired.more {
                        return;
                    }
                }
                Err(error) => return tracing::warn!(%error, "messages that had their time were not deleted"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_one_look_is_looked_at_by_the_next() {
        let settled = |look: &Look| (look.settled.0, look.seen.0);
        let look = Look { settled: MessageId(10), seen: MessageId(500) };
        // As many as are looked at at once ended at 200, and then at 300.
        let look = look.after(MessageId(200));
        assert_eq!(settled(&look), (200, 200), "what is up to 500 is still to be looked at");
        let look = look.after(MessageId(300));
        assert_eq!(settled(&look), (200, 300), "everything twice");
        let look = look.after(MessageId(600));
        assert_eq!(settled(&look), (300, 600));
        assert_eq!(settled(&look.after(MessageId(600))), (600, 600), "nothing has changed");
    }
}
