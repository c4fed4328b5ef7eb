//! The binary `neonhub`: reads what is asked and hands over.

mod cli;

use clap::Parser as _;

/// The stages allocate per record; glibc's allocator took a fifth of their time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::Cli::parse().run()
}
