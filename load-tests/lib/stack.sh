# Sourced by ../run.sh. One NeonHub of the run's own: free loopback ports, a fresh folder, random keys.

readonly ready_limit_seconds=120 stop_limit_seconds=60
neonhub_pid=
data_folder=
kafka_brokers=

# start_broker WITH_KAFKA: a broker that lives until stop_broker, or until this shell is gone, however that ends: its last
# command reads from here.
start_broker() {
  coproc broker { exec "$1" bash -c 'echo "$NEONHUB_KAFKA_BROKERS"; cat >/dev/null'; }
  read -r -t "$ready_limit_seconds" -u "${broker[0]}" kafka_brokers || fail 'the Kafka broker does not start'
}

stop_broker() {
  local pid=${broker_PID:-}
  [[ -n $pid ]] || return 0
  exec {broker[1]}>&-
  wait "$pid" 2>/dev/null || true
}

# start_neonhub BINARY LOG: returns when every role is ready. Exports the keys, and the addresses as the scripts want them.
start_neonhub() {
  local binary=$1 log=$2 ingest api processors clickhouse role deadline
  data_folder=$(mktemp -d "${TMPDIR:-/tmp}/neonhub-load-XXXXXX")
  read -r ingest api processors clickhouse < <(free_ports)
  WRITE_KEY=$(random_hex) API_KEY=$(random_hex)
  INGEST_URL="http://127.0.0.1:$ingest" API_URL="http://127.0.0.1:$api" CLICKHOUSE_URL="http://127.0.0.1:$clickhouse"
  export WRITE_KEY API_KEY INGEST_URL API_URL
  # Empty is no value: what a shell has set for another NeonHub must not reach this one. The folder has no neonhub.toml.
  (
    cd "$data_folder"
    exec env NEONHUB_CONFIG= NEONHUB_DATA_DIR="$data_folder/data" \
      NEONHUB_INGEST_ADDR="127.0.0.1:$ingest" NEONHUB_API_ADDR="127.0.0.1:$api" \
      NEONHUB_PROCESSORS_ADDR="127.0.0.1:$processors" NEONHUB_CLICKHOUSE_ADDR="127.0.0.1:$clickhouse" \
      NEONHUB_KAFKA_BROKERS="$kafka_brokers" NEONHUB_CLICKHOUSE_URL= NEONHUB_SCYLLA_NODES= NEONHUB_CLICKHOUSE_DATABASE= \
      NEONHUB_BOOTSTRAP_WORKSPACE=load NEONHUB_BOOTSTRAP_WRITE_KEY="$WRITE_KEY" NEONHUB_BOOTSTRAP_API_KEY="$API_KEY" \
      "$binary" up
  ) >"$log" 2>&1 9>&- &
  neonhub_pid=$!
  deadline=$((SECONDS + ready_limit_seconds))
  for role in "$ingest" "$api" "$processors"; do
    until curl --silent --fail --max-time 5 --output /dev/null "http://127.0.0.1:$role/health/ready"; do
      is_running "$neonhub_pid" || { tail -n 20 "$log" >&2; fail "NeonHub ended at its start; its log is $log"; }
      ((SECONDS < deadline)) || fail "NeonHub is not ready after $ready_limit_seconds s; its log is $log"
      sleep 0.2
    done
  done
}

stop_neonhub() {
  [[ -n $neonhub_pid ]] && end_process "$neonhub_pid"
  neonhub_pid=
  [[ -n $data_folder ]] && rm -rf "$data_folder"
  data_folder=
}

is_running() { kill -0 "$1" 2>/dev/null; }

# Asks a child to end, and makes it end when it does not.
end_process() {
  local deadline=$((SECONDS + stop_limit_seconds))
  kill "$1" 2>/dev/null || true
  while is_running "$1" && ((SECONDS < deadline)); do
    sleep 0.1
  done
  kill -9 "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

random_hex() { od -An -N 24 -t x1 /dev/urandom | tr -d ' \n'; }

# Four that nobody listens on now.
free_ports() {
  python3 - <<'PY'
import socket
sockets = [socket.socket() for _ in range(4)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
PY
}
