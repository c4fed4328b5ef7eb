#!/usr/bin/env bash
# Measures which lines the unit tests and the crates' own tests reach, by cargo-tarpaulin, which brings its own reader of LLVM's
# profiles. The scenarios run NeonHub in processes of their own, which are not counted: they are left out.
#
# Usage: deploy/coverage.sh      CARGO names cargo; about a quarter of an hour on two cores
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.37.5
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
tools="$cache/cargo-tarpaulin-$version"
cargo="${CARGO:-cargo}"

[[ -x $tools/bin/cargo-tarpaulin ]] || "$cargo" install --locked --root "$tools" "cargo-tarpaulin@$version" >&2

# Scenarios by their names: tarpaulin takes the same arguments for every test binary.
scenarios=(embedded:: kafka backup_and_restore clickhouse_users failed_writes forgetful_broker hostile_connections
  openapi_contract rolling_restart watching)
CARGO_PROFILE_DEV_DEBUG=0 "$tools/bin/cargo-tarpaulin" tarpaulin --workspace --locked --engine llvm --lib --test it \
  --target-dir "${CARGO_TARGET_DIR:-target}/coverage" --out Stdout --timeout 600 \
  --exclude-files 'topology/tests/*' --exclude-files '*/benches/*' \
  -- "${scenarios[@]/#/--skip=}"
