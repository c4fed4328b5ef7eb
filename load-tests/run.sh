#!/usr/bin/env bash
# Starts a NeonHub of its own, lets k6 play a scenario against it, and counts in ClickHouse what ingest accepted. Leaves
# reports in target/load.
#
# Usage: load-tests/run.sh [smoke|average|stress|spike|soak|breakpoint]
#        BACKBONE=embedded|kafka WHAT=ingest|dashboards|all; README.md has the other variables and the exit codes.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
readonly threshold_exit=99

fail() {
  printf 'load-tests: %s\n' "$1" >&2
  exit 1
}

export SCENARIO=${1:-${SCENARIO:-smoke}}
backbone=${BACKBONE:-embedded}
what=${WHAT:-ingest}
neonhub=$(realpath "${NEONHUB_BIN:-$root/target/release/neonhub}")
case "$SCENARIO" in smoke | average | stress | spike | soak | breakpoint) ;; *) fail "unknown scenario '$SCENARIO': say smoke, average, stress, spike, soak or breakpoint" ;; esac
case "$what" in ingest | dashboards) scripts=("$what") ;; all) scripts=(ingest dashboards) ;; *) fail "WHAT = $what: say ingest, dashboards or all" ;; esac
[[ -x $neonhub ]] || fail "$neonhub is not there: make build, or name another in NEONHUB_BIN"
case "$backbone" in embedded | kafka) ;; *) fail "BACKBONE = $backbone: say embedded or kafka" ;; esac

# shellcheck source=load-tests/lib/k6.sh
source "$here/lib/k6.sh"
# shellcheck source=load-tests/lib/stack.sh
source "$here/lib/stack.sh"
# shellcheck source=load-tests/lib/count.sh
source "$here/lib/count.sh"

k6=${K6:-$(k6_path)}
SAMPLE=$("$root/deploy/fetch-demo-data.sh" | tail -n 1)
export SAMPLE
reports="${CARGO_TARGET_DIR:-$root/target}/load/$(date -u +%Y%m%dT%H%M%SZ)-$SCENARIO-$backbone"
mkdir -p "$reports"

k6_pid=
end() {
  [[ -z $k6_pid ]] || end_process "$k6_pid"
  stop_neonhub
  stop_broker
}
trap end EXIT
trap 'exit 1' INT TERM

# Sets `passed` to false where the run broke a rule.
play() {
  local script=$1 k6_exit=0 accepted unanswered verdict
  local quiet=(--quiet)
  [[ ! -t 2 ]] || quiet=()
  RUN="load-$(random_hex | cut -c 1-12)"
  printf '\n%s, %s, %s backbone, run %s\n' "$script" "$SCENARIO" "$backbone" "$RUN"
  # The report has a point each second; with ten, as is k6's habit, a short run has none.
  RUN=$RUN SUMMARY_FILE="$reports/$script.json" RESULT_FILE="$reports/$script.result" \
    K6_WEB_DASHBOARD=true K6_WEB_DASHBOARD_PORT=-1 K6_WEB_DASHBOARD_PERIOD=1s K6_WEB_DASHBOARD_EXPORT="$reports/$script.html" \
    K6_NO_USAGE_REPORT=true K6_AUTO_EXTENSION_RESOLUTION=false "$k6" run --address '' --log-output "file=$reports/$script.log" "${quiet[@]}" \
    "$here/$script.js" 9>&- &
  k6_pid=$!
  wait "$k6_pid" || k6_exit=$?
  k6_pid=
  # 99 is k6's exit code for a threshold that was broken. Which ones decide is in the result.
  if ((k6_exit != 0 && k6_exit != 99)) || [[ ! -s $reports/$script.result ]]; then
    tail -n 20 "$reports/$script.log" >&2 || true
    fail "k6 could not play $script.js (exit code $k6_exit)"
  fi
  is_running "$neonhub_pid" || { tail -n 20 "$reports/neonhub.log" >&2; fail "NeonHub ended during the run"; }
  read -r accepted unanswered verdict <"$reports/$script.result"
  [[ $verdict == passed ]] || passed=false
  count_matches "$RUN" "$accepted" "$unanswered" || passed=false
  printf 'report      %s\n' "$reports/$script.html"
}

[[ $backbone == embedded ]] || start_broker "$root/deploy/with-kafka.sh"
start_neonhub "$neonhub" "$reports/neonhub.log"
printf 'NeonHub     ingest %s · query API %s · ClickHouse %s\n' "$INGEST_URL" "$API_URL" "$CLICKHOUSE_URL"
passed=true
for script in "${scripts[@]}"; do
  play "$script"
done
if [[ $passed == false ]]; then
  printf '\nresult      FAILED\n'
  exit "$threshold_exit"
fi
printf '\nresult      passed\n'
