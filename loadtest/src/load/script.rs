//! What is done to nodes while they are measured, as somebody types it: `3s kill owner`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{DurationError, duration::write_duration, parse_duration};

/// What is done to a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL: it is gone at once.
    Kill,
    /// SIGTERM: it drains and ends.
    Drain,
    /// SIGSTOP: it is there and does nothing.
    Stop,
    /// SIGCONT: it goes on after a stop.
    Continue,
    /// An administrator's `POST /api/v1/admin/nodes/:id/drain`: it drains and stays.
    ApiDrain,
    /// `DELETE` of the same: it takes on work again.
    ApiUndrain,
}

impl Action {
    const ALL: [Self; 6] = [Self::Kill, Self::Drain, Self::Stop, Self::Continue, Self::ApiDrain, Self::ApiUndrain];

    /// As it is typed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Continue => "continue",
            Self::ApiDrain => "api-drain",
            Self::ApiUndrain => "api-undrain",
        }
    }

    /// The signal to the node's process; `None` where the API is asked.
    pub(super) const fn signal(self) -> Option<libc::c_int> {
        match self {
            Self::Kill => Some(libc::SIGKILL),
            Self::Drain => Some(libc::SIGTERM),
            Self::Stop => Some(libc::SIGSTOP),
            Self::Continue => Some(libc::SIGCONT),
            Self::ApiDrain | Self::ApiUndrain => None,
        }
    }

    /// Whether it takes the node from its members, so that what follows is worth measuring.
    pub(super) const fn is_fault(self) -> bool {
        !matches!(self, Self::Continue | Self::ApiUndrain)
    }
}

/// To which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one that owns the channel then; there must be a single one.
    Owner,
    /// The first that does not own it.
    Edge,
    /// The one at that place of the list of servers, from 0.
    Node(usize),
}

impl Target {
    /// As it is typed: nodes are counted from 1.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Owner => "owner".to_owned(),
            Self::Edge => "edge".to_owned(),
            Self::Node(place) => (place + 1).to_string(),
        }
    }
}

/// One line of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Fault {
    /// Since the measured time began.
    pub at: Duration,
    /// What.
    pub action: Action,
    /// To whom.
    pub target: Target,
}

/// Why a text is no line of a script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// Not three words.
    #[error("`{0}` does not say when, what and to whom; something like `3s kill owner` would do")]
    Words(String),
    /// No time.
    #[error(transparent)]
    Time(#[from] DurationError),
    /// No action.
    #[error("`{0}` is nothing that can be done to a node; kill, drain, stop, continue, api-drain and api-undrain are")]
    Action(String),
    /// No target.
    #[error("`{0}` is no node; owner, edge and its place in the list of servers, from 1, are")]
    Target(String),
    /// A node that stands still, or drains, owns nothing.
    #[error("what is to go on must be named by its place in the list of servers: who owns a channel has changed")]
    Continue,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [at, action, target] = words.as_slice() else { return Err(FaultError::Words(text.to_owned())) };
        let at = parse_duration(at)?;
        let known = Action::ALL.into_iter().find(|known| known.as_str() == *action);
        let action = known.ok_or_else(|| FaultError::Action((*action).to_owned()))?;
        let target = match *target {
            "owner" => Target::Owner,
            "edge" => Target::Edge,
            place => {
                let place = place.parse().ok().and_then(|place: usize| place.checked_sub(1));
                Target::Node(place.ok_or_else(|| FaultError::Target((*target).to_owned()))?)
            }
        };
        match (action, target) {
            (Action::Continue | Action::ApiUndrain, Target::Owner | Target::Edge) => Err(FaultError::Continue),
            _ => Ok(Self { at, action, target }),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", write_duration(self.at), self.action.as_str(), self.target.name())
    }
}

impl TryFrom<String> for Fault {
    type Error = FaultError;

    fn try_from(text: String) -> Result<Self, FaultError> {
        text.parse()
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_what_and_to_whom() {
        let fault = |text: &str| text.parse::<Fault>();
        let at = Duration::from_millis(1_500);
        assert_eq!(fault("1.5s kill owner"), Ok(Fault { at, action: Action::Kill, target: Target::Owner }));
        assert_eq!(fault(" 1500ms  drain edge "), Ok(Fault { at, action: Action::Drain, target: Target::Edge }));
        assert_eq!(fault("1.5 stop 1"), Ok(Fault { at, action: Action::Stop, target: Target::Node(0) }));
        assert_eq!(fault("1.5s continue 12"), Ok(Fault { at, action: Action::Continue, target: Target::Node(11) }));
        assert_eq!(Target::Node(11).name(), "12");
        for text in ["1500ms kill owner", "2s api-drain edge", "3s api-undrain 2"] {
            assert_eq!(fault(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn anything_else_says_what_would_do() {
        let error = |text: &str| text.parse::<Fault>().expect_err(text);
        for text in ["", "kill owner", "3s kill", "3s kill owner now"] {
            assert_eq!(error(text), FaultError::Words(text.to_owned()));
        }
        assert!(
            matches!(error("soon kill 1"), FaultError::Time(_)) && matches!(error("-3s kill 1"), FaultError::Time(_))
        );
        assert_eq!(error("3s shoot 1"), FaultError::Action("shoot".to_owned()));
        for target in ["0", "-1", "both", "1.5"] {
            assert_eq!(error(&format!("3s kill {target}")), FaultError::Target(target.to_owned()));
        }
        assert_eq!(error("3s continue owner"), FaultError::Continue);
        assert!(error("3s shoot 1").to_string().contains("drain"));
    }
}
