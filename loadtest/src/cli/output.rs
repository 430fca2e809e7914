//! Everything that the program prints goes through here: results to standard output, all else to standard error.

use std::{
    fmt::Arguments,
    io::{self, Write as _},
    process,
};

/// A result, for people or programs to read. Ends the program where nobody takes it: without a word where they have what they wanted, as
/// `head` has.
pub(crate) fn result(text: Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout(), "{text}") {
        if error.kind() != io::ErrorKind::BrokenPipe {
            note(format_args!("cannot write: {error}"));
        }
        process::exit(1);
    }
}

/// What goes on, for people.
pub(crate) fn note(text: Arguments<'_>) {
    // Nobody is told where even that cannot be said.
    let _ = writeln!(io::stderr(), "{text}");
}
