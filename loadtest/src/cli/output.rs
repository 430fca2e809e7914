//! Everything that the program prints goes through here: results to standard output, all else to standard error.

use std::fmt::Arguments;

/// A result, for people or programs to read.
#[expect(clippy::print_stdout, reason = "the results of a command-line program go to standard output")]
pub(crate) fn result(text: Arguments<'_>) {
    println!("{text}");
}

/// What goes on, for people.
#[expect(clippy::print_stderr, reason = "what is no result goes to standard error, so that results can be piped")]
pub(crate) fn note(text: Arguments<'_>) {
    eprintln!("{text}");
}
