//! Why a file was not transcoded.

use std::io;

/// Why a file was not transcoded. The texts are for people who know the file.
#[derive(Debug, thiserror::Error)]
pub enum TranscodeError {
    /// Neither a format nor a codec that can be decoded.
    #[error("the file's format is not supported: {0}")]
    Unsupported(String),
    /// A known format with nothing, or nonsense, in it.
    #[error("the file cannot be decoded: {0}")]
    Undecodable(String),
    /// More than a bound allows.
    #[error("the file is refused: {0}")]
    TooMuch(String),
    /// The time was over.
    #[error("the file took longer to decode than the {0} s that are allowed")]
    TooSlow(u64),
    /// Nobody wants it any more.
    #[error("decoding was stopped")]
    Stopped,
    /// A file could not be read or written, or a program not run.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl TranscodeError {
    /// Whether it is the file's fault: another attempt at the same bytes ends likewise.
    #[must_use]
    pub fn is_of_the_file(&self) -> bool {
        match self {
            Self::Unsupported(_) | Self::Undecodable(_) | Self::TooMuch(_) | Self::TooSlow(_) => true,
            Self::Stopped | Self::Io(_) => false,
        }
    }
}
