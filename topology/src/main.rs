//! The binary `neonhub`: reads what is asked and hands over.

mod cli;

use clap::Parser as _;

/// The stages allocate per record; glibc's allocator took a fifth of their time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The allocator asks for huge pages, which are in memory whole as soon as one byte of them is used: 20 to 30 B more for
    // each key-window. A kernel without the call has none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    cli::Cli::parse().run()
}
