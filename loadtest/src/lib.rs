//! The native client of Antiphon, and what the load tester is built on.
