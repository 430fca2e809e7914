//! The command line.

use std::process::ExitCode;

use antiphon::{server, settings};

/// Short-lived small buffers are most of what a voice server allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let loaded = settings::load(None)?;
    for warning in &loaded.warnings {
        complain(&warning.to_string());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(server::run(loaded.settings))?;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "nothing logs yet, or any more, when this is said")]
fn complain(text: &str) {
    eprintln!("antiphon: {text}");
}
