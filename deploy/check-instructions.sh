#!/usr/bin/env bash
# Counts the instructions of one turn of each hot path (valgrind's callgrind) and compares them with deploy/instructions.tsv.
# More than a tenth above fails; more than a tenth below asks for a new count to be kept. Counts are those of the pinned
# compiler on x86-64 and do not depend on what else the machine does.
#
# Usage: deploy/check-instructions.sh [--write]     (--write keeps the counts)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
kept=deploy/instructions.tsv
tolerance=10 # percent
few=100 many=600

if [[ $(uname -m) != x86_64 ]]; then
  echo "instructions are counted on x86-64 only; this is $(uname -m)" >&2
  exit 0
fi
mapfile -t programs < <(
  ${CARGO:-cargo} build --release --locked --package neonhub-schemas --package neonhub-ingest \
    --bench hot_paths --bench accept --message-format json-render-diagnostics |
    grep -o '"executable":"[^"]*"' | cut -d '"' -f 4 | grep -E '/(hot_paths|accept)-[0-9a-f]+$'
)
((${#programs[@]} == 2)) || { echo "the benches were not built: ${programs[*]}" >&2; exit 2; }

# Start and set-up are in both counts.
count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$1" --turns "$2" "$3" 2>&1 | awk '/Collected/ { print $NF }'
}
turn() {
  local less more
  less=$(count "$1" "$2" "$few")
  more=$(count "$1" "$2" "$many")
  echo $(((more - less) / (many - few)))
}

found=$(mktemp)
trap 'rm -f "$found"' EXIT
for program in "${programs[@]}"; do
  while read -r name; do
    printf '%s\t%s\n' "$name" "$(turn "$program" "$name")" >>"$found"
  done < <("$program" --names)
done
if [[ ${1:-} == --write ]]; then
  cp "$found" "$kept"
  cat "$kept"
  exit
fi

awk -F '\t' -v tolerance="$tolerance" '
  NR == FNR { kept[$1] = $2; next }
  !($1 in kept) { printf "%-36s %8d   new: keep it with --write\n", $1, $2; failed = 1; next }
  {
    change = 100 * ($2 - kept[$1]) / kept[$1]
    verdict = "fine"
    if (change > tolerance) { verdict = "TOO MANY"; failed = 1 }
    if (change < -tolerance) verdict = "fewer: keep them with --write"
    printf "%-36s %8d  kept %8d  %+6.1f %%  %s\n", $1, $2, kept[$1], change, verdict
    delete kept[$1]
  }
  END {
    for (name in kept) { printf "%-36s is kept and no longer there\n", name; failed = 1 }
    exit failed
  }' "$kept" "$found"
