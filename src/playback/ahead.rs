//! A file's packets, read in a thread of its own, some ahead of who takes them.

use std::{io, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Track,
    packets::{Packet, Packets},
    pages::page_before,
};
use crate::streaming::OpenFile;

/// Packets that are read ahead: a second of them.
const AHEAD: usize = 50;

/// Reads a track from the packet on in which so many samples of it have passed. It ends when nobody takes its packets any more.
pub(super) fn read_ahead(track: &Track, from: u64) -> mpsc::Receiver<io::Result<Packet>> {
    let (give, taken) = mpsc::channel(AHEAD);
    let (file, repeat) = (Arc::clone(&track.file), track.repeat);
    tokio::task::spawn_blocking(move || {
        let mut from = from;
        loop {
            match give_file(&file, from, &give) {
                // A file without sound would be read again and again.
                Ok(goes_on) if repeat && (goes_on || from > 0) => from = 0,
                Ok(_) => return,
                // Nobody may be left to take it.
                Err(error) => {
                    let _ = give.blocking_send(Err(error));
                    return;
                }
            }
            if give.is_closed() {
                return;
            }
        }
    });
    taken
}

/// Gives all packets of a file from there on; whether there were any, and somebody to take them.
fn give_file(file: &Arc<OpenFile>, from: u64, give: &mpsc::Sender<io::Result<Packet>>) -> io::Result<bool> {
    let mut packets = Packets::new(OpenFile::reader(file))?;
    if from > 0
        && let Some(page) = page_before(OpenFile::reader(file), from)?
    {
        packets.go_to(page)?;
    }
    let mut has_given = false;
    while let Some(packet) = packets.next()? {
        if packet.at + u64::from(packet.samples) <= from {
            continue;
        }
        if give.blocking_send(Ok(packet)).is_err() {
            return Ok(false);
        }
        has_given = true;
    }
    Ok(has_given)
}
