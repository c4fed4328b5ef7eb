#!/usr/bin/env bash
# Runs a command with an Apache Kafka broker of its own, on loopback and free ports, named by NEONHUB_KAFKA_BROKERS. Broker
# and data are gone when the command has ended; its exit code is this script's.
#
# Usage: deploy/with-kafka.sh COMMAND [ARGUMENT]...
set -euo pipefail

(($# > 0)) || { echo "usage: deploy/with-kafka.sh COMMAND [ARGUMENT]..." >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars="$("$here/fetch-real-stack.sh" kafka | tail -n 1)/lib"
folder=$(mktemp -d "${TMPDIR:-/tmp}/neonhub-kafka-XXXXXX")
broker=
end() {
  if [[ -n $broker ]]; then
    kill "$broker" 2>/dev/null || true
    wait "$broker" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap end EXIT

# Two that nobody listens on now.
read -r port controller < <(python3 - <<'PY'
import socket
sockets = [socket.socket() for _ in range(2)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
PY
)
cat >"$folder/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$folder/data
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
EOF
kafka() { java -Xmx1g -Xss512k -Dorg.apache.logging.log4j.level=WARN -cp "$jars/*" "$@"; }
kafka kafka.tools.StorageTool format --standalone -t bmVvbmh1Yi1iZW5jaC0wMA -c "$folder/server.properties" >"$folder/format.log" 2>&1 ||
  { cat "$folder/format.log" >&2; exit 1; }
# `exec`: the process that is ended must be the broker itself.
(exec java -Xmx1g -Dorg.apache.logging.log4j.level=WARN -cp "$jars/*" kafka.Kafka "$folder/server.properties") >"$folder/server.log" 2>&1 &
broker=$!
for _ in $(seq 300); do
  # It accepts connections only a little before it serves clients, which wait for that.
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    NEONHUB_KAFKA_BROKERS="127.0.0.1:$port" "$@"
    exit
  fi
  kill -0 "$broker" 2>/dev/null || break
  sleep 0.2
done
cat "$folder/server.log" >&2
exit 1
