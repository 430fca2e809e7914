//! The scripts, and reading their answers.

use std::sync::LazyLock;

use bytes::Bytes;
use fred::types::{Value, scripts::Script};

use super::codec::{Unreadable, decode};

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $($file:literal),+;)*) => {
        $($(#[$doc])* pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::from_lua(concat!($(include_str!(concat!("scripts/", $file, ".lua"))),+)));)*

        #[cfg(test)]
        fn all() -> Vec<(&'static str, &'static Script)> {
            vec![$((stringify!($name), &*$name)),*]
        }
    };
}

scripts! {
    JOIN = "channel", "join";
    LEAVE = "channel", "leave";
    SET_VOICE = "channel", "set_voice";
    PUBLISH = "channel", "publish";
    SET_SERVER_MUTE = "channel", "set_server_mute";
    ADOPT = "channel", "adopt";
    APPEND = "channel", "append";
    TELL = "channel", "tell";
    RESTORE = "channel", "restore";
    SWEEP = "channel", "sweep";
    SNAPSHOT = "channel", "snapshot";
    MISSED = "channel", "missed";
    FORGET = "channel", "forget";
    REGISTER = "nodes", "register";
    RENEW = "nodes", "renew";
    VIEW = "nodes", "view";
    UNREGISTER = "nodes", "unregister";
    CLAIM_SWEEP = "nodes", "claim_sweep";
    END_SWEEP = "nodes", "end_sweep";
    SESSION_PUT = "session_put";
    SESSION_CLAIM = "session_claim";
    SESSION_RELEASE = "session_release";
}

/// A script's answer: a list whose first element says what it is, read from front to back.
#[derive(Debug)]
pub(super) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    pub(super) fn new(value: Value) -> Self {
        match value {
            Value::Array(values) => Self(values.into_iter()),
            value => Self(vec![value].into_iter()),
        }
    }

    fn next(&mut self) -> Result<Value, Unreadable> {
        self.0.next().ok_or_else(|| unreadable("a short answer"))
    }

    pub(super) fn text(&mut self) -> Result<String, Unreadable> {
        self.next()?.into_string().ok_or_else(|| unreadable("no text"))
    }

    pub(super) fn number(&mut self) -> Result<u64, Unreadable> {
        self.next()?.as_u64().ok_or_else(|| unreadable("no number"))
    }

    pub(super) fn record<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Unreadable> {
        decode(&bytes_of(self.next()?)?)
    }

    pub(super) fn list(&mut self) -> Result<Self, Unreadable> {
        match self.next()? {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(unreadable("no list")),
        }
    }

    /// Everything that is left, each a record.
    pub(super) fn records<T: serde::de::DeserializeOwned>(self) -> Result<Vec<T>, Unreadable> {
        self.0.map(|value| decode(&bytes_of(value)?)).collect()
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Unreadable> {
        bytes_of(self.next()?)
    }

    /// Everything that is left: a text and bytes by turns.
    pub(super) fn pairs(mut self) -> Result<Vec<(String, Bytes)>, Unreadable> {
        let mut pairs = Vec::new();
        while !self.is_empty() {
            pairs.push((self.text()?, self.bytes()?));
        }
        Ok(pairs)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

pub(super) fn bytes_of(value: Value) -> Result<Bytes, Unreadable> {
    value.into_bytes().ok_or_else(|| unreadable("no bytes"))
}

fn unreadable(what: &str) -> Unreadable {
    Unreadable(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_scripts_are_the_same() {
        let mut hashes: Vec<_> = all().into_iter().map(|(_, script)| script.sha1().clone()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), all().len());
    }
}
