//! How a session's partner is doing, in the words that operators read.

use std::time::Instant;

use super::{Dial, Session};

/// How a session's partner is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// The partner cannot be reached.
    Lost,
    /// A stream broke, and the partner is looked for.
    Doubtful,
    /// There is no stream yet. The partner is dialled, or will be after a pause.
    Connecting,
    /// There is a stream to the partner.
    Connected,
    /// There is no stream, and none is needed.
    Idle,
}

impl SessionState {
    /// The word that operators read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubtful => "doubtful",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Idle => "idle",
        }
    }
}

impl Session {
    /// How the partner is doing.
    pub fn state(&self) -> SessionState {
        match (&self.stream, &self.dial) {
            _ if self.is_lost => SessionState::Lost,
            (Some(_), _) => SessionState::Connected,
            (None, _) if self.is_doubted => SessionState::Doubtful,
            (None, Dial::Idle) => SessionState::Idle,
            (None, Dial::Running(_) | Dial::Waiting { .. }) => SessionState::Connecting,
        }
    }

    /// When the partner is dialled next; `None` while there is a stream or a dial, or no reason for one.
    pub fn next_dial(&self) -> Option<Instant> {
        match self.dial {
            Dial::Waiting { until } if self.stream.is_none() => Some(until),
            _ => None,
        }
    }
}
