//! Sealing a frame for a listener by WebRTC allocates nothing, whatever the connection's cipher, and neither does reading what
//! is reported of it.

use antiphon_core::{
    clock::Micros,
    ids::StreamId,
    rtcp::{self, SENDER_REPORT_BYTES_MAX},
    srtp::{OVERHEAD_BYTES_MAX, Profile, Side, Srtp},
    voice::{ExtensionId, Mid, Terms, VoiceStream},
    wire::{
        datagram::DATAGRAM_BYTES_MAX,
        frame::{FrameHeader, FrameKind},
    },
};

use crate::allocations;

#[test]
fn voice_past_the_library_allocates_nothing() {
    for profile in [Profile::Aes128Gcm, Profile::Aes256Gcm, Profile::Aes128CmSha1] {
        let exported: Vec<u8> = (0..88).collect();
        let srtp = Srtp::new(profile, &exported, Side::Server).expect("long enough");
        let mut stream = VoiceStream::default();
        let mid = ExtensionId::new(4).zip(Mid::new("abc"));
        stream.agree(Some(Terms { ssrc: 7, payload_type: 111, level_id: ExtensionId::new(1), mid }));
        let mut packet = [0; DATAGRAM_BYTES_MAX];
        let mut sealed = 0;
        let work = || {
            for number in 0..1_000_u16 {
                let now = Micros::from_millis(u64::from(number) * 20);
                let header = FrameHeader {
                    stream: StreamId(1),
                    sequence: number,
                    timestamp: u32::from(number) * 960,
                    kind_flags: 0,
                    level: 30,
                };
                let frame = (&header.with_kind(FrameKind::Audio), &[1; 80][..]);
                sealed += usize::from(stream.seal(now, &srtp, frame, &mut packet).is_some());
                if let Some(report) = stream.report(now, || 1, "name") {
                    let mut out = [0; SENDER_REPORT_BYTES_MAX + OVERHEAD_BYTES_MAX];
                    let length = report.write(out.first_chunk_mut().expect("room"));
                    let length = srtp.seal_rtcp(u32::from(number), &mut out, length).expect("room");
                    let opened = srtp.open_rtcp(&mut out[..length]).expect("authentic");
                    rtcp::read_reports(opened, |_| ());
                }
            }
        };
        assert_eq!(allocations(work), 0, "{profile:?}");
        assert_eq!(sealed, 1_000);
    }
}
