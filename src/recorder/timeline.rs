//! What is known of a track beside its sound: a line of JSON for each thing, appended as it becomes known, so that nothing of
//! it is lost with the process.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use antiphon_core::ids::{ChannelId, RecordingId, StreamId, TrackId, UserId};
use serde::{Deserialize, Serialize};

/// Lines of one track that are read: a day of saying something every two seconds.
const LINES_MAX: usize = 100_000;

/// Whose track it is, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackHead {
    /// Which track.
    pub track: TrackId,
    /// Of which recording.
    pub recording: RecordingId,
    /// Of which channel.
    pub channel: ChannelId,
    /// Who speaks.
    pub user: UserId,
    /// Their username then.
    pub username: String,
    /// The node that heard them.
    pub node: String,
    /// Their stream then.
    pub stream: StreamId,
    /// Audio channels.
    pub channels: u8,
    /// When the first sample was said, in microseconds since 1970 UTC by the node's clock.
    pub started_us: i64,
}

/// One thing that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// First of all.
    Head(TrackHead),
    /// The first sample was said at another time than the head says.
    Started { us: i64 },
    /// Something begins to be said: at which sample, when its first frame came, and which it was.
    Speaks { sample: u64, us: i64, sequence: u16 },
    /// Up to this sample.
    Pauses { sample: u64 },
    /// There is no more: so many samples, packets that came, and packets that came too late to be put in.
    Ended { samples: u64, packets: u64, late: u64 },
}

/// Writes lines.
pub(super) struct Lines {
    file: File,
}

impl Lines {
    pub(super) fn create(path: &Path, head: TrackHead) -> io::Result<Self> {
        let mut lines = Self { file: File::options().append(true).create(true).open(path)? };
        lines.add(&Line::Head(head))?;
        Ok(lines)
    }

    pub(super) fn add(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

/// What is known of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Whose it is; `started_us` as it was last known.
    pub head: TrackHead,
    /// From which sample to which something is said.
    pub spurts: Vec<(u64, u64)>,
    /// How many samples there are, where the track was ended and not broken off.
    pub samples: Option<u64>,
}

impl Timeline {
    /// Reads a track's lines. A last one that is torn is passed over.
    ///
    /// # Errors
    /// When the file cannot be read, or does not begin with a head.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::of(&fs::read_to_string(path)?)
    }

    /// Of a track's lines, likewise.
    ///
    /// # Errors
    /// When they do not begin with a head.
    pub fn of(text: &str) -> io::Result<Self> {
        let mut lines = text.lines().take(LINES_MAX).map_while(|line| serde_json::from_str(line).ok());
        let Some(Line::Head(head)) = lines.next() else { return Err(io::ErrorKind::InvalidData.into()) };
        let mut timeline = Self { head, spurts: Vec::new(), samples: None };
        let mut speaks_since = None;
        for line in lines {
            match line {
                Line::Head(_) => {}
                Line::Started { us } => timeline.head.started_us = us,
                Line::Speaks { sample, .. } => speaks_since = Some(sample),
                Line::Pauses { sample } => timeline.spurts.extend(speaks_since.take().map(|since| (since, sample))),
                Line::Ended { samples, .. } => timeline.samples = Some(samples),
            }
        }
        // It was broken off while something was said.
        timeline.spurts.extend(speaks_since.map(|since| (since, timeline.samples.unwrap_or(u64::MAX))));
        Ok(timeline)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_written_before_it_was_torn_is_read() {
        let path = std::env::temp_dir().join(format!("antiphon-timeline-{}", Uuid::now_v7()));
        let head = TrackHead {
            track: TrackId(Uuid::from_u128(1)),
            recording: RecordingId(Uuid::from_u128(2)),
            channel: ChannelId(Uuid::from_u128(3)),
            user: UserId(Uuid::from_u128(4)),
            username: "alice".to_owned(),
            node: "one".to_owned(),
            stream: StreamId(5),
            channels: 1,
            started_us: 1_000,
        };
        let mut lines = Lines::create(&path, head.clone()).expect("writes");
        for line in [
            Line::Speaks { sample: 0, us: 1_000, sequence: 9 },
            Line::Started { us: 990 },
            Line::Pauses { sample: 960 },
            Line::Speaks { sample: 9_600, us: 201_000, sequence: 19 },
        ] {
            lines.add(&line).expect("writes");
        }
        let timeline = Timeline::read(&path).expect("reads");
        assert_eq!(timeline.head, TrackHead { started_us: 990, ..head });
        assert_eq!((timeline.spurts, timeline.samples), (vec![(0, 960), (9_600, u64::MAX)], None));
        lines.file.write_all(b"{\"ended\":{\"samp").expect("writes");
        assert_eq!(Timeline::read(&path).expect("reads").samples, None);
        let _ = fs::remove_file(&path);
    }
}
