//! Audio over the gateway, both ways: for members whose UDP is blocked or who chose `media: websocket`.

use antiphon_core::{
    engine::{Command, FRAME_BYTES_MAX, FrameBytes, GatewayFrame},
    gateway::{AudioBytes, AudioData, AudioFrame, ErrorCode},
    ids::{ChannelId, StreamId},
    wire::frame::{FrameHeader, LEVEL_SILENCE},
};

use super::{Rooms, admit::not_joined, outlet::Shared, presence::Presence};
use crate::{error::AppError, telemetry::metrics::metrics};

/// The level of a frame that names none: as loud as ordinary speech.
const USUAL_LEVEL: u8 = 30;

impl Rooms {
    /// Takes a frame that came over the gateway. The media worker's queue is bounded: a frame that finds it full is
    /// dropped and counted there, as one that finds a socket's buffer full.
    ///
    /// # Errors
    /// When the session is not in the channel, or the bytes are no frame.
    pub fn frame(&self, presence: &Presence, audio: AudioData) -> Result<(), AppError> {
        let place = presence.place(audio.channel_id).ok_or_else(not_joined)?;
        let frame = checked(place.stream, audio)?;
        let command = Command::Frame { channel: place.room.id, stream: place.stream, frame };
        if self.inner.media.try_frame(place.room.home, command) {
            metrics().rooms.frames_from_gateway.increment(1);
        }
        Ok(())
    }

    /// Sends a frame of `channel` to the members who get no UDP.
    pub(super) fn tunnelled(&self, channel: ChannelId, header: &FrameHeader, bytes: &FrameBytes) {
        let Some(room) = self.room(channel) else { return };
        let live = room.live();
        let Some(speaker) = live.roster.get(header.stream) else { return };
        let mut frame = None;
        for (stream, listener) in &live.members {
            let hears_streams = listener.mix.is_none() && !listener.switches.deafened;
            if *stream == header.stream || !hears_streams || !listener.is_tunnelled() {
                continue;
            }
            let frame = frame.get_or_insert_with(|| {
                Shared::new(AudioFrame {
                    channel_id: channel,
                    user_id: speaker.member.user.id,
                    stream_id: header.stream,
                    data: AudioBytes(bytes.as_slice().to_vec()),
                    sequence: header.sequence,
                    timestamp: header.timestamp,
                    kind: header.kind_flags,
                    level: header.level,
                })
            });
            listener.outlet.send_audio(frame);
        }
    }
}

/// The same as is asked of a frame in a datagram, in words.
fn checked(stream: StreamId, audio: AudioData) -> Result<GatewayFrame, AppError> {
    let invalid = |message: String| AppError::new(ErrorCode::InvalidInput, message);
    let AudioData { data: AudioBytes(bytes), sequence, timestamp, kind, level, .. } = audio;
    let header = FrameHeader {
        stream,
        sequence: sequence.unwrap_or(0),
        timestamp: timestamp.unwrap_or(0),
        kind_flags: kind.unwrap_or(0),
        level: level.unwrap_or(USUAL_LEVEL).min(LEVEL_SILENCE),
    }
    .with_flag(FrameHeader::FLAG_PRIORITY, false);
    if bytes.len() > FRAME_BYTES_MAX {
        let length = bytes.len();
        return Err(invalid(format!("data of {length} bytes: a frame has at most {FRAME_BYTES_MAX}")));
    }
    if header.kind().is_none() {
        let kind = header.kind_flags & 0x0f;
        return Err(invalid(format!("kind {kind} is none of 0 (audio), 1 (start), 2 (stop) and 3 (silence)")));
    }
    if !header.allows(&bytes) {
        return Err(invalid("data is empty: a frame of kind 0 (audio) holds one Opus packet".to_owned()));
    }
    Ok(GatewayFrame { sequence, timestamp, kind: header.kind_flags, level: header.level, bytes })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn audio(bytes: usize, kind: Option<u8>) -> AudioData {
        AudioData {
            channel_id: ChannelId(Uuid::from_u128(1)),
            data: AudioBytes(vec![0xfc; bytes]),
            sequence: None,
            timestamp: Some(960),
            kind,
            level: Some(200),
        }
    }

    #[test]
    fn a_frame_is_what_a_datagram_could_carry() {
        for (bytes, kind, wrong) in [
            (80, None, None),
            (FRAME_BYTES_MAX, Some(0), None),
            (FRAME_BYTES_MAX + 1, Some(0), Some("at most 1454")),
            (0, Some(0), Some("empty")),
            (0, Some(0x10), Some("empty")),
            (0, Some(2), None),
            (0, Some(3), None),
            (80, Some(4), Some("kind 4")),
        ] {
            let result = checked(StreamId(1), audio(bytes, kind));
            assert_eq!(result.is_err(), wrong.is_some(), "{bytes} bytes of kind {kind:?}");
            if let (Err(error), Some(wrong)) = (result, wrong) {
                assert!(error.message.contains(wrong), "{error}");
            }
        }
    }

    #[test]
    fn only_the_server_says_who_is_heard_first() {
        let frame = checked(StreamId(1), audio(80, Some(0x90))).expect("a frame");
        assert_eq!(frame.kind, 0x10);
        assert_eq!((frame.level, frame.sequence, frame.timestamp), (127, None, Some(960)));
    }
}
