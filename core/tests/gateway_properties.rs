//! Properties of the gateway's codec: no frame makes it panic, and every message survives each of its forms.

use antiphon_core::{
    gateway::*,
    ids::{
        ChannelId, GroupId, KeyId, ListeningId, MediaSessionId, MessageId, RecordingId, SessionId, StreamId, UserId,
    },
};
use proptest::{
    collection::{hash_map, vec},
    option,
    prelude::*,
    sample::select,
};
use uuid::Uuid;

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];
const SHAPES: [Shape; 2] = [Shape::Tagged, Shape::External];

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn channel_id() -> impl Strategy<Value = ChannelId> {
    uuid().prop_map(ChannelId)
}

fn user_id() -> impl Strategy<Value = UserId> {
    uuid().prop_map(UserId)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", any::<String>()]
}

fn request_id() -> impl Strategy<Value = Option<RequestId>> {
    option::of(prop_oneof![any::<i64>().prop_map(RequestId::Number), "[ -~é]{0,60}".prop_map(RequestId::Text),])
}

fn position() -> impl Strategy<Value = Position> {
    (text(), any::<u64>()).prop_map(|(epoch, offset)| Position { epoch, offset })
}

fn audio() -> impl Strategy<Value = AudioBytes> {
    vec(any::<u8>(), 0..300).prop_map(AudioBytes)
}

fn cipher() -> impl Strategy<Value = Cipher> {
    select(&Cipher::ALL[..])
}

fn transport() -> impl Strategy<Value = MediaTransport> {
    select(&[MediaTransport::Udp, MediaTransport::Websocket, MediaTransport::Webrtc][..])
}

fn reason() -> impl Strategy<Value = LeaveReason> {
    use LeaveReason::{Banned, Kicked, Left, Moved, Replaced, Timeout};
    select(&[Left, Timeout, Kicked, Banned, Replaced, Moved][..])
}

fn join() -> impl Strategy<Value = ClientMessage> {
    let mode = select(&[MediaMode::Forward, MediaMode::Mixed][..]);
    let rest = (option::of(cipher()), option::of(any::<u32>()), option::of(any::<u8>()), option::of(text()));
    (channel_id(), transport(), mode, rest).prop_map(|(channel_id, media, mode, rest)| {
        let (cipher, sample_rate, channels, invite) = rest;
        JoinChannel { channel_id, media, mode, cipher, sample_rate, channels, invite }.into()
    })
}

fn client_audio() -> impl Strategy<Value = ClientMessage> {
    let rest = any::<(Option<u16>, Option<u32>, Option<u8>, Option<u8>)>();
    (channel_id(), audio(), rest).prop_map(|(channel_id, data, (sequence, timestamp, kind, level))| {
        AudioData { channel_id, data, sequence, timestamp, kind, level }.into()
    })
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let resume = (uuid().prop_map(SessionId), text(), hash_map(channel_id(), position(), 0..4));
    let state = any::<(Option<bool>, Option<bool>)>();
    prop_oneof![
        (option::of(text()), option::of(text())).prop_map(|(token, username)| Authenticate { token, username }.into()),
        Just(Heartbeat {}.into()),
        resume.prop_map(|(session_id, resume_token, positions)| {
            Resume { session_id, resume_token, positions }.into()
        }),
        join(),
        channel_id().prop_map(|channel_id| LeaveChannel { channel_id }.into()),
        channel_id().prop_map(|channel_id| StartAudio { channel_id }.into()),
        channel_id().prop_map(|channel_id| StopAudio { channel_id }.into()),
        (channel_id(), state)
            .prop_map(|(channel_id, (muted, deafened))| SetVoiceState { channel_id, muted, deafened }.into()),
        client_audio(),
        (channel_id(), user_id(), any::<u16>()).prop_map(|(channel_id, user_id, gain_percent)| {
            SetMixGain { channel_id, user_id, gain_percent }.into()
        }),
        (channel_id(), position()).prop_map(|(channel_id, position)| Recover { channel_id, position }.into()),
        (text(), text(), option::of(text()), option::of(any::<u64>())).prop_map(|(room, content, nonce, reply_to)| {
            PostMessage { room, content, nonce, reply_to: reply_to.map(MessageId) }.into()
        }),
    ]
}

fn user() -> impl Strategy<Value = UserView> {
    let role = select(&[Role::User, Role::Admin][..]);
    (user_id(), text(), text(), role, any::<(bool, bool)>(), text()).prop_map(
        |(id, username, display_name, role, (is_active, is_guest), created_at)| UserView {
            id,
            username,
            display_name,
            role,
            is_active,
            is_guest,
            created_at,
        },
    )
}

fn channel() -> impl Strategy<Value = ChannelView> {
    let numbers = any::<(u32, u32, bool, u32)>();
    (channel_id(), text(), text(), user_id(), numbers, text()).prop_map(
        |(id, name, description, owner_id, (max_users, max_speakers, is_private, current_users), created_at)| {
            ChannelView {
                id,
                name,
                description,
                owner_id,
                max_users,
                max_speakers,
                is_private,
                current_users,
                created_at,
            }
        },
    )
}

fn member() -> impl Strategy<Value = MemberView> {
    (user(), any::<u32>(), any::<(bool, bool, bool, bool)>(), transport()).prop_map(
        |(user, stream, (muted, deafened, server_muted, speaking), media)| MemberView {
            user_id: user.id,
            user,
            stream_id: StreamId(stream),
            muted,
            deafened,
            server_muted,
            speaking,
            media,
        },
    )
}

fn udp_setup() -> impl Strategy<Value = UdpSetup> {
    (any::<(u32, u32, u8, u64)>(), vec(text(), 0..3), cipher(), text(), text()).prop_map(
        |((session, group, key_id, ping_ms), udp, cipher, session_key, key)| UdpSetup {
            session_id: MediaSessionId(session),
            group_id: GroupId(group),
            udp,
            cipher,
            session_key,
            group_key: GroupKeySetup { key_id: KeyId(key_id), key },
            ping_ms,
        },
    )
}

fn joined() -> impl Strategy<Value = ChannelJoined> {
    let voice = (any::<u32>(), option::of(any::<u32>()), option::of(udp_setup())).prop_map(|(stream, mix, udp)| {
        VoiceSetup { stream_id: StreamId(stream), mix_stream_id: mix.map(StreamId), udp }
    });
    (channel(), vec(member(), 0..3), position(), voice, option::of(recording())).prop_map(
        |(channel, members, position, voice, recording)| ChannelJoined {
            channel_id: channel.id,
            channel,
            members,
            position,
            voice,
            recording,
        },
    )
}

fn recording() -> impl Strategy<Value = RecordingNow> {
    (uuid(), user_id(), text()).prop_map(|(id, by, started_at)| RecordingNow {
        recording_id: RecordingId(id),
        by,
        started_at,
    })
}

fn recording_message() -> impl Strategy<Value = ServerMessage> {
    let place = || (channel_id(), option::of(position()));
    prop_oneof![
        (place(), recording()).prop_map(|((channel_id, position), recording)| {
            RecordingStarted { channel_id, recording, position }.into()
        }),
        (place(), uuid(), select(&RecordingEnd::ALL[..]), option::of(user_id())).prop_map(
            |((channel_id, position), id, reason, by)| {
                RecordingStopped { channel_id, recording_id: RecordingId(id), reason, by, position }.into()
            }
        ),
        (place(), uuid(), any::<u32>()).prop_map(|((channel_id, position), id, tracks)| {
            RecordingFinished { channel_id, recording_id: RecordingId(id), tracks, position }.into()
        }),
    ]
}

/// Events as the journal keeps them: maps of strings and numbers.
fn events() -> impl Strategy<Value = Vec<serde_json::Value>> {
    let event = (text(), any::<u64>()).prop_map(|(name, offset)| {
        serde_json::json!({"type": "UserLeft", "name": name, "position": {"epoch": "e", "offset": offset}})
    });
    vec(event, 0..3)
}

fn resumed() -> impl Strategy<Value = ServerMessage> {
    let channels = vec((joined(), any::<Option<bool>>(), option::of(events())), 0..3);
    let room = (channel_id(), position(), any::<Option<bool>>(), option::of(events()));
    let room = room.prop_map(|(channel_id, position, recovered, events)| ResumedText {
        channel_id,
        position,
        recovered,
        events,
    });
    (uuid(), text(), user(), channels, vec(room, 0..3)).prop_map(|(session, resume_token, user, channels, rooms)| {
        let channels = channels.into_iter();
        let channel = |(joined, recovered, events)| ResumedChannel { joined, recovered, events };
        let (session_id, channels) = (SessionId(session), channels.map(channel).collect());
        Resumed { session_id, resume_token, user, channels, rooms }.into()
    })
}

fn posted() -> impl Strategy<Value = ServerMessage> {
    let texts = (text(), text(), text(), text(), option::of(text()));
    let ids = (any::<u64>(), user_id(), channel_id(), option::of(any::<u64>()), option::of(vec(user_id(), 0..3)));
    (texts, ids, any::<Option<bool>>(), option::of(position())).prop_map(|(texts, ids, deleted, position)| {
        let (username, content, timestamp, room, edited_at) = texts;
        let (id, from_user, channel_id, reply_to, mentions) = ids;
        let (id, reply_to, reactions) = (MessageId(id), reply_to.map(MessageId), None);
        MessagePosted::from(MessageData {
            id,
            from_user,
            username,
            content,
            timestamp,
            room,
            channel_id,
            reply_to,
            edited_at,
            deleted,
            reactions,
            mentions,
            position,
        })
        .into()
    })
}

fn session_message() -> impl Strategy<Value = ServerMessage> {
    let hello = (uuid(), text(), any::<u64>(), text(), any::<u64>());
    let error = (select(&ErrorCode::ALL[..]), text(), any::<u64>());
    prop_oneof![
        hello.prop_map(|(session, resume_token, heartbeat_ms, node, server_time_us)| {
            Hello { session_id: SessionId(session), resume_token, heartbeat_ms, node, server_time_us }.into()
        }),
        (user(), option::of(text()), option::of(text())).prop_map(|(user, access_token, refresh_token)| {
            Authenticated { user, access_token, refresh_token }.into()
        }),
        any::<u64>().prop_map(|server_time_us| HeartbeatAck { server_time_us }.into()),
        resumed(),
        posted(),
        (text(), any::<u64>(), vec(text(), 0..3)).prop_map(|(reason, grace_ms, nodes)| Reconnect {
            reason,
            grace_ms,
            nodes
        }
        .into()),
        error.prop_map(|(error_code, error, timestamp)| { Error { error_code, error, timestamp }.into() }),
        Just(Ack {}.into()),
    ]
}

fn membership_message() -> impl Strategy<Value = ServerMessage> {
    let who = (channel_id(), user_id(), any::<u32>().prop_map(StreamId));
    let state = (user_id(), channel_id(), any::<(bool, bool, bool)>(), user_id(), position());
    prop_oneof![
        joined().prop_map(Into::into),
        channel_id().prop_map(|channel_id| ChannelLeft { channel_id }.into()),
        (channel_id(), reason(), option::of(user_id()), option::of(text()))
            .prop_map(|(channel_id, reason, by, message)| Removed { channel_id, reason, by, message }.into()),
        (channel_id(), any::<u32>(), user(), transport(), position()).prop_map(
            |(channel_id, stream, user, media, position)| {
                UserJoined { channel_id, user_id: user.id, stream_id: StreamId(stream), user, media, position }.into()
            }
        ),
        (who, reason(), position()).prop_map(|((channel_id, user_id, stream_id), reason, position)| {
            UserLeft { channel_id, user_id, stream_id, reason, position }.into()
        }),
        state.prop_map(|(user_id, channel_id, (muted, deafened, server_muted), by, position)| {
            VoiceStateChanged { user_id, channel_id, muted, deafened, server_muted, by, position }.into()
        }),
        (channel_id(), any::<bool>(), option::of(events()), option::of(vec(member(), 0..3)), option::of(position()))
            .prop_map(|(channel_id, recovered, events, members, position)| {
                Recovered { channel_id, recovered, events, members, position, recording: None }.into()
            }),
        recording_message(),
    ]
}

fn voice_message() -> impl Strategy<Value = ServerMessage> {
    let frame = (channel_id(), user_id(), audio(), any::<(u32, u16, u32, u8, u8)>());
    // A share in steps that are exact in binary, so that decimal text brings it back.
    let hint = (channel_id(), any::<(u32, bool, bool, u32)>(), 0..=256_u16);
    prop_oneof![
        (user_id(), channel_id()).prop_map(|(user_id, channel_id)| AudioStarted { user_id, channel_id }.into()),
        (user_id(), channel_id()).prop_map(|(user_id, channel_id)| AudioStopped { user_id, channel_id }.into()),
        frame.prop_map(|(channel_id, user_id, data, (stream, sequence, timestamp, kind, level))| {
            AudioFrame { channel_id, user_id, stream_id: StreamId(stream), data, sequence, timestamp, kind, level }
                .into()
        }),
        (channel_id(), any::<(u32, u8)>(), text()).prop_map(|(channel_id, (group, key_id), key)| {
            KeyRotated { channel_id, group_id: GroupId(group), key_id: KeyId(key_id), key }.into()
        }),
        hint.prop_map(|(channel_id, (bitrate, fec, dtx, phase_us), loss)| {
            let expected_loss = f32::from(loss) / 256.0;
            QualityHint { channel_id, bitrate, fec, dtx, expected_loss, phase_us }.into()
        }),
    ]
}

fn listening_message() -> impl Strategy<Value = ServerMessage> {
    let begun = || {
        (uuid(), text(), text(), text(), text()).prop_map(|(id, path, quality, network, began_at)| ListeningBegun {
            listening_id: ListeningId(id),
            path,
            quality,
            network,
            began_at,
        })
    };
    prop_oneof![
        begun().prop_map(Into::into),
        // A share in steps that are exact in binary, so that decimal text brings it back.
        (begun(), text(), any::<u64>(), 0..=256_u16).prop_map(|(begun, ended_at, sent_bytes, heard)| {
            ListeningEnded { begun, ended_at, sent_bytes, heard: f64::from(heard) / 256.0 }.into()
        }),
        any::<(u64, u64, u32, u64)>().prop_map(|(listeners, channel_listeners, nodes, missed)| {
            ListeningStats { listeners, channel_listeners, nodes, missed }.into()
        }),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    prop_oneof![session_message(), membership_message(), voice_message(), listening_message()]
}

/// The forms a message can have.
fn forms() -> impl Iterator<Item = (Encoding, Shape)> {
    ENCODINGS.into_iter().flat_map(|encoding| SHAPES.map(|shape| (encoding, shape)))
}

fn decode_as_everything(bytes: &[u8]) {
    for encoding in ENCODINGS {
        // Whatever comes out, an error has something to say.
        if let Err(error) = decode_client(encoding, bytes) {
            assert!(!error.to_string().is_empty());
        }
        if let Err(error) = decode_server(encoding, bytes) {
            assert!(!error.to_string().is_empty());
        }
    }
}

proptest! {
    #[test]
    fn client_messages_round_trip(message in client_message(), id in request_id()) {
        for (encoding, shape) in forms() {
            let bytes = encode_client(encoding, shape, &message, id.as_ref());
            let decoded = decode_client(encoding, &bytes);
            prop_assert_eq!(decoded, Ok((message.clone(), id.clone(), shape)), "{:?} {:?}", encoding, shape);
        }
    }

    #[test]
    fn server_messages_round_trip(message in server_message(), id in request_id()) {
        for (encoding, shape) in forms() {
            let bytes = encode_server(encoding, shape, &message, id.as_ref());
            let decoded = decode_server(encoding, &bytes);
            // Chat has one shape.
            let shape = if matches!(message, ServerMessage::MessagePosted(_)) { Shape::Tagged } else { shape };
            prop_assert_eq!(decoded, Ok((message.clone(), id.clone(), shape)), "{:?} {:?}", encoding, shape);
        }
    }

    #[test]
    fn random_bytes_are_errors_and_no_panics(bytes in vec(any::<u8>(), 0..2_000)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn nearly_json_is_no_panic(text in r#"[\[\]{}",:0-9a-zA-Z.\\u-]{0,200}"#) {
        decode_as_everything(text.as_bytes());
    }

    #[test]
    fn damaged_messages_are_no_panic(
        message in client_message(),
        (at, byte, cut) in (any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>()),
    ) {
        for (encoding, shape) in forms() {
            let mut bytes = encode_client(encoding, shape, &message, Some(&RequestId::Number(1)));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            decode_as_everything(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            decode_as_everything(&bytes);
        }
    }

    /// A wrong field is answered with the message's name and the request's id.
    #[test]
    fn wrong_fields_are_named(name in select(ClientMessage::NAMES), id in any::<i64>(), shape in select(&SHAPES[..])) {
        // No message has a field of this type by this name, but those that need a channel miss it.
        let fields = format!(r#""request_id":{id},"channel_id":17,"session_id":17,"token":17"#);
        let json = match shape {
            Shape::Tagged => format!(r#"{{"type":"{name}",{fields}}}"#),
            Shape::External => format!(r#"{{"{name}":{{{fields}}}}}"#),
        };
        match decode_client(Encoding::Json, json.as_bytes()) {
            Err(DecodeError::Invalid { name: named, request_id, shape: read_shape, .. }) => {
                prop_assert_eq!((named, read_shape), (name, shape));
                prop_assert_eq!(request_id, Some(RequestId::Number(id)));
            }
            // Of some messages all fields may be absent.
            Ok((message, request_id, read_shape)) => {
                prop_assert!(["Heartbeat", "typing", "unread", "join_room", "subscribe", "leave"].contains(&name), "{}", name);
                prop_assert_eq!((message.name(), request_id, read_shape), (name, Some(RequestId::Number(id)), shape));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

/// Frames of the greatest size that are all depth, or announce more than they hold.
#[test]
fn deep_and_boastful_frames_are_errors() {
    for filler in [b'[', b'{', 0x91, 0x81, b'"', 0xd9, b'\\'] {
        decode_as_everything(&vec![filler; FRAME_BYTES_MAX]);
    }
    let opening = br#"{"type":"Heartbeat","x":"#;
    for filler in [&b"["[..], br#"{"a":"#] {
        let deep: Vec<u8> =
            opening.iter().copied().chain(filler.iter().copied().cycle()).take(FRAME_BYTES_MAX).collect();
        assert!(matches!(decode_client(Encoding::Json, &deep), Err(DecodeError::Malformed(_))));
    }
    // A map, an array, text and bytes of four billion entries each.
    for boast in [0xdf, 0xdd, 0xdb, 0xc6] {
        let bytes = [boast, 0xff, 0xff, 0xff, 0xff, 0xa4, b't', b'y', b'p', b'e'];
        assert!(matches!(decode_client(Encoding::MessagePack, &bytes), Err(DecodeError::Malformed(_))), "{boast:x}");
    }
}
