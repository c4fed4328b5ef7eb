//! The fuzzer: libFuzzer around one of the targets, which the environment names. Built by `deploy/fuzz.sh`, which
//! instruments the crates. An unknown name ends with the list of them.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Target = (&'static str, fn(&[u8]));

fn targets() -> impl Iterator<Item = Target> {
    let schemas = neonhub_schemas::fuzz::TARGETS.into_iter();
    let services = neonhub_ingest::fuzz::TARGETS.into_iter().chain(neonhub_api::fuzz::TARGETS);
    schemas.chain(services).chain(neonhub_processors::fuzz::TARGETS).chain(neonhub_topology::fuzz::TARGETS)
}

#[expect(clippy::disallowed_methods, reason = "libFuzzer's main leaves no other way in")]
fn chosen() -> fn(&[u8]) {
    let name = std::env::var("NEONHUB_FUZZ_TARGET").unwrap_or_default();
    if let Some((_, check)) = targets().find(|(known, _)| *known == name) {
        return check;
    }
    let known: Vec<&str> = targets().map(|(known, _)| known).collect();
    eprintln!("NEONHUB_FUZZ_TARGET = `{name}` is none of {}", known.join(", "));
    std::process::exit(2)
}

fuzz_target!(|bytes: &[u8]| {
    static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();
    CHOSEN.get_or_init(chosen)(bytes);
});
