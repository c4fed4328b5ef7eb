#!/usr/bin/env bash
# The benches but for spill, spill-refine and scaling, several times, each with its limit in the same run. BENCH_FLAGS=--json
# prints one object a line.
#
# Usage: deploy/bench.sh     (ROUNDS=3 by default)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
neonhub=${NEONHUB:-target/release/neonhub}
rounds=${ROUNDS:-3}
read -ra flags <<<"${BENCH_FLAGS:-}"

on_kafka() { deploy/with-kafka.sh "$neonhub" bench "$@" "${flags[@]}"; }
for _ in $(seq "$rounds"); do
  # Enough that joining groups and opening transactions, which each run does once, does not count.
  on_kafka ingest --batch 100 --events 1000000
  on_kafka ingest --batch 1 --events 200000
  on_kafka refine --events 1000000
  on_kafka metrics --events 2000000
  on_kafka metrics --builtin --events 2000000
  on_kafka landing
  on_kafka latency
  on_kafka latency --to clickhouse
  on_kafka skew
  on_kafka workers
  on_kafka restore
  "$neonhub" bench restore "${flags[@]}"
  "$neonhub" bench memory "${flags[@]}"
  "$neonhub" bench query "${flags[@]}"
  "$neonhub" bench viewers "${flags[@]}"
  "$neonhub" bench latency "${flags[@]}"
  "$neonhub" bench latency --to clickhouse "${flags[@]}"
  "$neonhub" bench embedded "${flags[@]}"
done
