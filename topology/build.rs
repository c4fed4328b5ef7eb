//! The C library's `write` gives way to ours: see `src/embedded/olap/writes.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol=write");
}
