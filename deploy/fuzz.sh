#!/usr/bin/env bash
# Fuzzes every decoder of outside bytes: libFuzzer, guided by coverage, from the committed corpora on. A target is a
# function that panics where a promise is broken (*/src/fuzz*). What it finds is kept in target/fuzz; an input that breaks a
# promise ends the run with 1, and once it is copied into the corpus it stays a test.
#
# Usage: deploy/fuzz.sh [TARGET…]   (all of them where none is named)
#   SECONDS_EACH=60   how long each target runs
#   JOBS=             targets at one time; as many as there are cores
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds_each="${SECONDS_EACH:-60}"
jobs="${JOBS:-$(nproc)}"
corpora=topology/fuzz/corpus
# Larger inputs find nothing that smaller ones do not, and slowly.
longest_input=4096
# No decoder may need more, whatever it is given.
memory_mb=1024
slowest_input_seconds=10

build() {
  # All members, as in the other tests, so that dependencies have the same features and are there already.
  RUSTC_WORKSPACE_WRAPPER="$PWD/topology/fuzz/instrument.sh" CARGO_INCREMENTAL=0 \
    "${CARGO:-cargo}" build --workspace --locked --example fuzz --features neonhub-topology/fuzzing \
    --message-format=json-render-diagnostics |
    sed -nE 's/.*"kind":\["example"\].*"name":"fuzz".*"executable":"([^"]+)".*/\1/p' | tail -n 1
}

run_target() {
  local target=$1 found="$work/$1"
  mkdir -p "$found/new" "$found/broken"
  if NEONHUB_FUZZ_TARGET="$target" "$fuzzer" "$found/new" "$corpora/$target" \
    -max_total_time="$seconds_each" -max_len="$longest_input" -timeout="$slowest_input_seconds" \
    -rss_limit_mb="$memory_mb" -artifact_prefix="$found/broken/" -seed=1 -use_value_profile=1 -print_final_stats=1 \
    >"$found/log" 2>&1; then
    printf '%-16s %9s inputs, %5s edges, no promise broken\n' "$target" \
      "$(sed -nE 's/^stat::number_of_executed_units: *//p' "$found/log")" \
      "$(sed -nE 's/.* cov: ([0-9]+) .*/\1/p' "$found/log" | tail -n 1)"
  else
    printf '%s: a promise is broken:\n' "$target"
    grep -vE '^#[0-9]+' "$found/log" | head -n 40
    printf 'the input is in %s; in %s/%s it becomes a test\n' "$found/broken" "$corpora" "$target"
    return 1
  fi
}

printf 'building the fuzzer…\n' >&2
fuzzer=$(build)
[[ -x $fuzzer ]] || { printf 'fuzz: the fuzzer was not built\n' >&2; exit 1; }
work="${fuzzer%/debug/*}/fuzz"
# A test sees to it that every target has a corpus.
targets=("${@:-}")
(($#)) || targets=("$corpora"/*)
targets=("${targets[@]##*/}")

export -f run_target
export fuzzer work corpora seconds_each longest_input memory_mb slowest_input_seconds
printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I{} bash -euo pipefail -c 'run_target {}'
