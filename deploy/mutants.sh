#!/usr/bin/env bash
# Changes the stages, the engine and the landing in one place after the other, and says which changes no test notices.
# What the unit tests miss is shown to the simulation. Takes hours; parts with MUTANTS_FLAGS:
#
#   MUTANTS_FLAGS="--re processors/src/landing/" deploy/mutants.sh
#   MUTANTS_FLAGS="--shard 0/8" deploy/mutants.sh
#
# What is changed and what is left out: .cargo/mutants.toml. Results: target/mutants.out.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo=${CARGO:-cargo}
cache=${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}
version=27.1.0
tool=$cache/cargo-mutants-$version
read -ra flags <<<"${MUTANTS_FLAGS:-}"

[[ -x $tool/bin/cargo-mutants ]] || "$cargo" install --locked --root "$tool" "cargo-mutants@$version" >&2

mkdir -p target
mutants() { "$tool/bin/cargo-mutants" mutants --workspace --output target "${flags[@]}" "$@"; }

# One folder of builds for both passes, so that dependencies are built once.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/mutants}

status=0
mutants -- --lib --test it || status=$?
# 2: some were missed.
((status == 2)) || exit "$status"

export NEONHUB_SIM_SEEDS=${NEONHUB_SIM_SEEDS:-300}
mutants --iterate --test-package neonhub-topology -- --test simulation windows_and_rows
