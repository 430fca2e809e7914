//! What one listener is sent: the headers, then a page for each part of the mix, until they go or are sent away.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::{LivePlace, ogg::LiveOgg};
use crate::{
    rooms::{Interruption, Overhearing, Parting},
    telemetry::metrics::{LiveEnd, metrics},
};

/// Who misses so many parts of 100 ms more than they get is sent away: they cannot keep up, and hear shreds.
const MISSED_MAX: u64 = 300;

/// A listener, from their first byte to their last.
pub struct LiveBody {
    hearing: Overhearing,
    ogg: LiveOgg,
    /// The headers wait to be sent.
    is_new: bool,
    /// Parts that were missed, less those that were not.
    missed: u64,
    /// How it ended, unless the listener left.
    ended: Option<LiveEnd>,
    _place: LivePlace,
}

impl LiveBody {
    /// A listener with a place; packets are filled up to `floor_bps`.
    #[must_use]
    pub fn new(hearing: Overhearing, comments: &[String], floor_bps: u32, place: LivePlace) -> Self {
        metrics().streaming.live_listens.increment(1);
        let ogg = LiveOgg::new(comments, floor_bps);
        Self { hearing, ogg, is_new: true, missed: 0, ended: None, _place: place }
    }

    /// As the body of an answer.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        stream::unfold(self, |mut body| async move {
            let bytes = body.next().await?;
            metrics().streaming.live_sent_bytes.increment(bytes.len() as u64);
            Some((Ok(bytes), body))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_new) {
            return Some(self.ogg.take());
        }
        if self.ended.is_some() {
            return None;
        }
        loop {
            match self.hearing.next().await {
                Ok(part) => {
                    self.missed = self.missed.saturating_sub(1);
                    return Some(self.ogg.page(&part));
                }
                Err(Interruption::Missed(count)) => {
                    metrics().streaming.live_parts_dropped.increment(count);
                    self.missed += count;
                    if self.missed >= MISSED_MAX {
                        return Some(self.end(LiveEnd::TooSlow));
                    }
                }
                Err(Interruption::Parted(Parting::Unwelcome)) => return Some(self.end(LiveEnd::Unwelcome)),
                Err(Interruption::Parted(Parting::Draining)) => return Some(self.end(LiveEnd::Draining)),
            }
        }
    }

    fn end(&mut self, end: LiveEnd) -> Bytes {
        self.ended = Some(end);
        self.ogg.end()
    }
}

impl Drop for LiveBody {
    fn drop(&mut self) {
        metrics().streaming.live_ends.of(self.ended.unwrap_or(LiveEnd::Left)).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::sync::watch;

    use super::*;
    use crate::{
        mixer::{FEED_PACKETS, FeedSender, SILENCE, feed},
        streaming::live::{Live, LiveConfig},
    };

    fn listener(feed: &FeedSender) -> (LiveBody, watch::Sender<Option<Parting>>) {
        let live = Live::new(LiveConfig { listeners_max: 1, per_address: 1, per_channel: 1, floor_bps: 0 });
        let channel = antiphon_core::ids::ChannelId(uuid::Uuid::nil());
        let place = live.place(std::net::IpAddr::from([127, 0, 0, 1]), channel).expect("free");
        let (hearing, part) = Overhearing::of_feed(feed);
        (LiveBody::new(hearing, &[], 0, place), part)
    }

    fn pass_on(feed: &FeedSender, parts: usize) {
        for _ in 0..parts {
            feed.send(vec![SILENCE.to_vec(); FEED_PACKETS].into()).expect("somebody listens");
        }
    }

    /// How often a page of the kind begins in a body.
    fn pages(body: &[u8], kind: u8) -> usize {
        body.windows(6).filter(|window| window.starts_with(b"OggS") && window[5] == kind).count()
    }

    #[tokio::test]
    async fn who_misses_a_little_goes_on_and_who_misses_too_much_is_cut() {
        let feed = feed();
        let (body, _part) = listener(&feed);
        let mut body = std::pin::pin!(body.into_stream());
        let head = body.next().await.expect("headers").expect("never fails");
        assert_eq!((pages(&head, 2), pages(&head, 0)), (1, 1));
        pass_on(&feed, 70);
        let page = body.next().await.expect("what is left").expect("never fails");
        assert_eq!(pages(&page, 0), 1, "the oldest are gone, the file goes on");
        pass_on(&feed, 400);
        let last = body.next().await.expect("the last page").expect("never fails");
        assert_eq!(pages(&last, 4), 1);
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn a_file_ends_when_its_channel_does_and_when_its_listener_is_to_go() {
        let feed = feed();
        let ((body, _part), (other, part)) = (listener(&feed), listener(&feed));
        part.send_replace(Some(Parting::Draining));
        let pieces: Vec<_> = other.into_stream().map(|piece| piece.expect("never fails")[5]).collect().await;
        assert_eq!(pieces, [2, 4], "at once, whatever waits");
        pass_on(&feed, 2);
        drop(feed);
        let pieces: Vec<_> = body.into_stream().map(|piece| piece.expect("never fails")).collect().await;
        let kinds: Vec<_> = pieces.iter().map(|piece| piece[5]).collect();
        assert_eq!(kinds, [2, 0, 0, 4]);
    }
}
