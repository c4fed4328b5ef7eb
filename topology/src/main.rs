//! The binary `neonhub`: reads what is asked and hands over.

mod cli;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    cli::Cli::parse().run()
}
