//! The scenarios that come with the program: files like any other, kept in `loadtest/scenarios`.

/// A scenario that can be named instead of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its TOML.
    pub text: &'static str,
}

/// All of them.
pub const PRESETS: [Preset; 7] = [
    Preset { name: "churn", text: include_str!("../../scenarios/churn.toml") },
    Preset { name: "storm", text: include_str!("../../scenarios/storm.toml") },
    Preset { name: "mixed", text: include_str!("../../scenarios/mixed.toml") },
    Preset { name: "webrtc", text: include_str!("../../scenarios/webrtc.toml") },
    Preset { name: "chat", text: include_str!("../../scenarios/chat.toml") },
    Preset { name: "stream", text: include_str!("../../scenarios/stream.toml") },
    Preset { name: "soak", text: include_str!("../../scenarios/soak.toml") },
];

impl Preset {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PRESETS.into_iter().find(|preset| preset.name == name)
    }
}
