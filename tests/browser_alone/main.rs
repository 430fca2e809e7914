//! Browsers that encode and decode as much as the machine can: what they lose or freeze for want of a processor is not the
//! node's doing, so nothing runs beside these tests: cargo runs one target at a time, and these take turns.

#![allow(clippy::print_stdout, reason = "tests show the figures that they measure")]

use tokio::sync::Mutex;

#[path = "../support/mod.rs"]
mod support;

mod layers;
mod steady;

#[path = "../browser/chromium.rs"]
#[allow(dead_code, reason = "shared with the other tests in browsers")]
mod chromium;
#[path = "../browser/gate.rs"]
#[allow(dead_code, reason = "shared with the other tests in browsers")]
mod gate;
#[path = "../browser/rooms.rs"]
#[allow(dead_code, reason = "shared with the other tests in browsers")]
mod rooms;

/// Held by each of these tests while it runs.
static ALONE: Mutex<()> = Mutex::const_new(());
