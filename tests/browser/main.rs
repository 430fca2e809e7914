//! Rooms in a real browser: Debian's Chromium with fake devices, against whole servers.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

#[path = "../support/mod.rs"]
mod support;

mod chromium;
mod cluster;
mod files;
#[allow(dead_code, reason = "shared with the tests in browsers that run alone")]
mod gate;
mod keyboard;
mod listening;
mod meeting;
mod moving;
mod phone;
mod recorded;
mod rooms;
mod standalone;
mod tone;
mod visitors;
mod ways;

#[path = "../recording/channel.rs"]
#[allow(dead_code, reason = "shared with the tests of recordings")]
mod recording_channel;
#[path = "../recording/files.rs"]
#[allow(dead_code, reason = "shared with the tests of recordings")]
mod recording_files;
