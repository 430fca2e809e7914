//! How much of what was written one answer holds: whoever asks and does not read must not cost the node megabytes.

use std::io;

use serde::Serialize;

use crate::store::Part;

/// The most bytes of JSON that the messages of one answer take; a single message that is longer goes alone. `MessagePack` takes less.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

/// The items of one answer: as many as fit, from the first on, and one in any case.
pub fn fitting<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut left = PAGE_BYTES_MAX;
    let mut taken = Vec::new();
    for item in items {
        // And the comma.
        let bytes = json_bytes(&item) + 1;
        if bytes > left && !taken.is_empty() {
            break;
        }
        left = left.saturating_sub(bytes);
        taken.push(item);
    }
    taken
}

/// What fits of a part of a history, oldest first: the oldest where it goes on from a message, else the newest.
pub(super) fn page<T: Serialize>(messages: Vec<T>, part: Part) -> Vec<T> {
    if let Part::After(_) = part {
        return fitting(messages);
    }
    let mut newest = fitting(messages.into_iter().rev());
    newest.reverse();
    newest
}

/// The length of a value's JSON, which is not kept.
fn json_bytes(value: &impl Serialize) -> usize {
    let mut counted = Counted(0);
    serde_json::to_writer(&mut counted, value).expect("messages have a JSON form");
    counted.0
}

struct Counted(usize);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::ids::MessageId;

    use super::*;

    /// Each has 1 KiB of JSON with its comma, the last digits saying which.
    fn messages(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{number:0>1021}")).collect()
    }

    #[test]
    fn a_page_keeps_the_end_that_was_asked_for() {
        let (few, many) = (messages(256), messages(300));
        assert_eq!(page(few.clone(), Part::Newest), few, "exactly as much as fits");
        for part in [Part::Newest, Part::Before(MessageId(9))] {
            assert_eq!(page(many.clone(), part), many[44..]);
        }
        assert_eq!(page(many.clone(), Part::After(MessageId(9))), many[..256]);
    }

    #[test]
    fn what_must_be_escaped_counts_as_it_is_sent() {
        let long = "\u{1}".repeat(PAGE_BYTES_MAX / 6);
        assert_eq!(page(vec![long.clone(), "short".to_owned()], Part::Newest), ["short"]);
        assert_eq!(page(vec!["short".to_owned(), long.clone()], Part::Newest), [long], "one goes in any case");
        assert_eq!(page(Vec::<String>::new(), Part::Newest), Vec::<String>::new());
    }
}
