//! One run of the program: parses, runs one command, and turns its outcome into stderr and an exit code; nothing else.

use std::process::ExitCode;

use crate::{app, argv, errors, print, usage};

/// Runs what the process's arguments say and returns its exit code.
pub fn run() -> ExitCode {
    let arguments = argv::join_selectors(std::env::args().collect());
    if let Some(code) = usage::complete_dynamically() {
        return code;
    }
    let mut parsed = match usage::parse(arguments) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    if parsed.command.takes_user() {
        parsed.global.user = None;
    }
    // Only fails when a provider is installed already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let warnings_as_errors = parsed.global.warnings_as_errors;
    let ctx = app::Ctx::new(parsed.global);
    let outcome = runtime.block_on(async {
        parsed.command.run(&ctx).await?;
        if warnings_as_errors {
            let count = ctx.client().await.map_or(0, |c| c.warnings());
            anyhow::ensure!(count == 0, "{count} warning{} received", if count == 1 { "" } else { "s" });
        }
        Ok(())
    });
    // A blocking read of stdin must not keep the process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

fn failure(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(broken_pipe)) {
        return ExitCode::FAILURE;
    }
    if let Some(errors::Exit(code)) = error.downcast_ref::<errors::Exit>() {
        return ExitCode::from(*code);
    }
    let text = errors::message(error);
    if !text.is_empty() {
        // A text that brings its own newline gets no other.
        let text = print::style::error(&text);
        eprint!("{text}{}", if text.ends_with('\n') { "" } else { "\n" });
    }
    ExitCode::FAILURE
}
