#!/usr/bin/env bash
# Measures which lines the tests reach, by cargo-tarpaulin, which brings its own reader of LLVM's profiles: unit tests, the crates'
# own tests, and what NeonHub does in processes of its own while the scenarios run, as far as they are not killed. Left out:
# the tests themselves, and `neonhub bench`, which measures and is not tested.
#
# Usage: deploy/coverage.sh      CARGO names cargo; about half an hour on two cores
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.37.5
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
tools="$cache/cargo-tarpaulin-$version"
cargo="${CARGO:-cargo}"
target="${CARGO_TARGET_DIR:-$PWD/target}/coverage"

[[ -x $tools/bin/cargo-tarpaulin ]] || "$cargo" install --locked --root "$tools" "cargo-tarpaulin@$version" >&2

# The processes are instances of the binary, whose lines are looked up in it.
CARGO_PROFILE_DEV_DEBUG=0 "$tools/bin/cargo-tarpaulin" tarpaulin --workspace --locked --engine llvm --lib --test it \
  --follow-exec --objects "$target/debug/neonhub" --target-dir "$target" --out Stdout --timeout 3600 \
  --exclude-files 'topology/tests/*' --exclude-files '*/benches/*' --exclude-files 'topology/src/bench/*' \
  -- --test-threads=2
