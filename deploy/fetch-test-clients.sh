#!/usr/bin/env bash
# Puts the official clients that the end-to-end tests speak through into the cache folder: a Python environment with
# clickhouse-connect, Segment's SDK, kafka-python and schemathesis, and a node_modules folder with @clickhouse/client, the SDKs
# of Segment (server and browser) and RudderStack, eventsource, ws and playwright-core. Prints one NAME=FOLDER line each. Does
# nothing when they are there and made from today's lists. The browser is deploy/fetch-chromium.sh's, kcat deploy/fetch-program.sh's.
#
# Usage: deploy/fetch-test-clients.sh
# Lists: topology/tests/clients/{requirements.txt,package.json,package-lock.json}
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lists="$here/../topology/tests/clients"
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"

fail() {
  printf 'fetch-test-clients: %s\n' "$1" >&2
  exit 1
}

is_made_from() {
  [[ -f "$1/made-from.sha256" && $(<"$1/made-from.sha256") == "$2" ]]
}

# A Python environment knows its own path, so it is built in place; the mark written last says that it is whole.
fetch_python_clients() {
  local target="$cache/test-clients-python" made_from
  # The interpreter belongs to the mark: an environment of a removed Python does not start.
  made_from=$({ cat "$lists/requirements.txt" && python3 --version; } | sha256sum | cut -d ' ' -f 1)
  if ! is_made_from "$target" "$made_from" || ! "$target/bin/python" -c '' 2>/dev/null; then
    printf 'fetching the Python clients…\n' >&2
    rm -rf "$target"
    python3 -m venv "$target" >&2 ||
      fail "python3 cannot make a virtual environment (on Debian or Ubuntu: apt-get install python3-venv)"
    "$target/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$lists/requirements.txt" >&2 ||
      fail "pip could not fetch the Python clients (its output is above)"
    printf '%s\n' "$made_from" >"$target/made-from.sha256"
  fi
  printf 'python=%s\n' "$target"
}

fetch_node_clients() {
  local target="$cache/test-clients-node" made_from unfinished
  made_from=$(cat "$lists/package.json" "$lists/package-lock.json" | sha256sum | cut -d ' ' -f 1)
  if ! is_made_from "$target" "$made_from"; then
    printf 'fetching the Node clients…\n' >&2
    unfinished=$(mktemp -d "$cache/.test-clients-node.XXXXXX")
    cp "$lists/package.json" "$lists/package-lock.json" "$lists/.npmrc" "$unfinished/"
    npm ci --prefix "$unfinished" --no-audit --no-fund --ignore-scripts --loglevel=error >&2 ||
      fail "npm could not fetch the Node clients (its output is above)"
    printf '%s\n' "$made_from" >"$unfinished/made-from.sha256"
    rm -rf "$target"
    mv -T "$unfinished" "$target"
  fi
  printf 'node=%s\n' "$target"
}

command -v python3 >/dev/null || fail "python3 is missing (on Debian or Ubuntu: apt-get install python3 python3-venv)"
command -v node >/dev/null || fail "node is missing; Node 20 or newer is needed (on Debian or Ubuntu: apt-get install nodejs npm)"
command -v npm >/dev/null || fail "npm is missing (on Debian or Ubuntu: apt-get install npm)"

mkdir -p "$cache"
# One fetch at a time: whoever waits finds the work done. An interrupted run leaves only dot folders, swept here.
exec 9>"$cache/.test-clients.lock"
flock 9
rm -rf "$cache"/.test-clients-node.*
fetch_python_clients
fetch_node_clients
