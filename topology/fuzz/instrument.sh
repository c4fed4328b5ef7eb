#!/usr/bin/env bash
# Cargo runs this in rustc's place for the crates of this workspace, and only for them: what they depend on stays as
# the other tests have built it. It adds what libFuzzer needs to see which code an input reaches, and which values it
# is compared with. Stable options all: no nightly toolchain is needed.
set -euo pipefail
for argument in "$@"; do
  # Build scripts and procedural macros have no fuzzer to call back.
  if [[ $argument == build_script_build || $argument == proc-macro ]]; then exec "$@"; fi
done
exec "$@" --cfg fuzzing \
  -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
