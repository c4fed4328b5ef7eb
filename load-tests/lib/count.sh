# Sourced by ../run.sh. Counts a run's events in ClickHouse against those that ingest accepted.

readonly count_pause_seconds=0.5
# Longer than rows wait for their insert, and for the next one: a row that was inserted twice has come by then.
readonly settle_seconds=3

# Prints rows and distinct message ids of the run.
count_events() {
  curl --silent --fail --max-time 10 "$CLICKHOUSE_URL/?database=neonhub" --data-binary \
    "SELECT count(), uniqExact(message_id) FROM events WHERE workspace = 'load' AND startsWith(message_id, '$1-') FORMAT TSV"
}

# count_matches RUN ACCEPTED UNANSWERED: waits until the accepted events are there, then compares. Each must be there once; of the
# UNANSWERED ones any number may be.
count_matches() {
  local run=$1 accepted=$2 unanswered=$3 begun=$SECONDS rows=0 ids=0 waited verdict=
  local deadline=$((SECONDS + ${LANDED_WITHIN_SECONDS:-120}))
  until ((rows >= accepted)) || ((SECONDS >= deadline)); do
    read -r rows ids < <(count_events "$run") || true
    ((rows >= accepted)) || sleep "$count_pause_seconds"
  done
  waited=$((SECONDS - begun))
  sleep "$settle_seconds"
  read -r rows ids < <(count_events "$run") || verdict='ClickHouse does not answer'
  if [[ -z $verdict ]] && ((ids != rows)); then
    verdict="$((rows - ids)) rows are there twice"
  elif [[ -z $verdict ]] && ((rows < accepted)); then
    verdict="$((accepted - rows)) accepted events are missing after $waited s"
  elif [[ -z $verdict ]] && ((rows > accepted + unanswered)); then
    verdict="$((rows - accepted - unanswered)) rows too many"
  fi
  printf "landed      %d rows, %d message ids, of %d accepted; %d s after k6 had ended\n" \
    "$rows" "$ids" "$accepted" "$waited"
  [[ -z $verdict ]] || printf 'broken      %s\n' "$verdict"
  [[ -z $verdict ]]
}
