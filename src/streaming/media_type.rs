//! What an audio file holds, by its ending.

/// Endings and media types, as RFC 5334 (Ogg), RFC 9639 (FLAC), RFC 3003 (MP3), RFC 4337 (MP4) and RFC 2361 (WAV) have
/// them. `audio/wav` is what browsers play; the registered `audio/vnd.wave` they do not all know.
const TYPES: [(&str, &str); 10] = [
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("flac", "audio/flac"),
    ("wav", "audio/wav"),
    ("m4a", "audio/mp4"),
    ("mp4", "audio/mp4"),
    ("aac", "audio/aac"),
    ("webm", "audio/webm"),
];

/// The media type of an audio file; `None` for other files.
pub(super) fn of(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit('/').next()?.rsplit_once('.')?;
    TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(ending)).map(|(_, media_type)| *media_type)
}
