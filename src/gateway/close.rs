//! Why connections are closed: the code, and what the client should do then.

use antiphon_core::gateway::ErrorCode;
use serde::Serialize;

pub use crate::telemetry::metrics::CloseCause;

/// The reason in a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Reason {
    pub(super) code: u16,
    /// Connecting again makes sense.
    reconnect: bool,
    /// The session can be resumed then.
    resume: bool,
}

impl CloseCause {
    /// What the client is told: a code of docs/protocol.md, 3.7, or of RFC 6455 (7.4.1) where that has one, and what
    /// to do.
    pub(super) const fn reason(self) -> Reason {
        let (code, reconnect, resume) = match self {
            Self::NotAuthenticated => (4001, true, false),
            Self::AuthenticationFailed => (4003, false, false),
            Self::RateLimited => (4008, true, true),
            Self::TimedOut => (4009, true, true),
            Self::SessionOver => (4009, true, false),
            Self::SlowReader | Self::NodeFull => (4011, true, true),
            Self::Draining => (4012, true, true),
            // The sessions of a single node end with it.
            Self::Stopping => (4012, true, false),
            Self::Banned => (4014, false, false),
            Self::Replaced => (4015, false, false),
            Self::TooLong => (1009, true, true),
            Self::ProtocolError => (1002, true, true),
            Self::NotUtf8 => (1007, true, true),
        };
        Reason { code, reconnect, resume }
    }
}

impl Reason {
    /// The same where there is no session to resume.
    pub(super) const fn without_session(self) -> Self {
        Self { resume: false, ..self }
    }

    /// As it stands in the frame, where it may have 123 bytes.
    pub(super) fn text(self) -> String {
        serde_json::to_string(&self).expect("numbers and booleans have a JSON form")
    }
}

/// How an `Authenticate` that failed ends: `None` keeps the connection, to try again until the time is up.
pub(super) const fn after_failed_authentication(code: ErrorCode) -> Option<CloseCause> {
    match code {
        ErrorCode::Unauthenticated | ErrorCode::PermissionDenied => Some(CloseCause::AuthenticationFailed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::family::Label as _;

    #[test]
    fn every_reason_fits_its_frame_and_names_its_code() {
        for cause in CloseCause::ALL {
            let text = cause.reason().text();
            assert!(text.len() <= 123, "{text}");
            let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(value["code"], cause.reason().code);
            // Whoever is told to resume must be told to connect.
            assert!(value["resume"] == false || value["reconnect"] == true, "{text}");
        }
        assert_eq!(CloseCause::SlowReader.reason().text(), r#"{"code":4011,"reconnect":true,"resume":true}"#);
    }
}
