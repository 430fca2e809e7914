//! The files that are listened to: where they are, and what is in them.

use std::time::Duration;

use super::{
    super::{LoadError, account::sign_in, members::Shared},
    Pace, Streams,
};
use crate::rest::{Rest, StreamFile};

/// What is in the files is kept in memory, up to so much in all.
const CONTENT_BYTES_MAX: u64 = 1 << 30;

/// Learning what is in a file goes on in ranges of so much.
const LEARN_BYTES: u64 = 1 << 20;

/// Links last for so much longer than they are needed.
const SPARE: Duration = Duration::from_secs(3_600);

/// A file.
pub(super) struct File {
    /// A signed link, relative to any node.
    pub(super) link: String,
    pub(super) content: Vec<u8>,
    /// How much of it plays in a second, where that was asked for.
    pub(super) bytes_per_s: Option<f64>,
}

/// Some of the server's files, each fetched once.
pub(super) async fn known_files(
    shared: &Shared,
    streams: &Streams,
    label: &str,
    lasting: Duration,
) -> Result<Vec<File>, LoadError> {
    let (rest, token) = (shared.rest(), sign_in(shared, 0, label).await?.access_token);
    let listed = rest.streams(&token, streams.files).await?;
    let listed: Vec<StreamFile> = listed.into_iter().filter(|file| file.size_bytes > 0).collect();
    if listed.is_empty() {
        let text = "the server has no audio files: put some into its folder (streaming.audio_dir)";
        return Err(LoadError::Arguments(text.to_owned()));
    }
    let bytes: u64 = listed.iter().map(|file| file.size_bytes).sum();
    if bytes > CONTENT_BYTES_MAX {
        let text = format!("{bytes} bytes of audio files, {CONTENT_BYTES_MAX} are the most; fewer files would do");
        return Err(LoadError::Arguments(text));
    }
    let mut files = Vec::with_capacity(listed.len());
    for file in listed {
        let link = rest.sign_stream(&token, &file.path, lasting + SPARE).await?;
        let content = whole(rest, &link, file.size_bytes).await?;
        let bytes_per_s = match streams.pace {
            Pace::Full => None,
            Pace::Playing => Some(content.len() as f64 / plays_for(rest, &token, &file.path).await?.as_secs_f64()),
        };
        files.push(File { link, content, bytes_per_s });
    }
    Ok(files)
}

/// All of a file.
async fn whole(rest: &Rest, link: &str, bytes: u64) -> Result<Vec<u8>, LoadError> {
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    while (content.len() as u64) < bytes {
        let at = content.len() as u64;
        let mut answer = rest.range(link, at..(at + LEARN_BYTES).min(bytes)).await?;
        let before = content.len();
        while let Some(chunk) = answer.next().await? {
            content.extend_from_slice(&chunk);
        }
        if content.len() == before || content.len() as u64 > bytes {
            return Err(LoadError::Protocol("answers a range of an audio file with nothing, or with too much"));
        }
    }
    Ok(content)
}

async fn plays_for(rest: &Rest, token: &str, path: &str) -> Result<Duration, LoadError> {
    let seconds = rest.stream_seconds(token, path).await?.filter(|seconds| *seconds > 0.0);
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| LoadError::Arguments(format!("how long {path} plays is not known: pace = \"full\" would do")))
}
