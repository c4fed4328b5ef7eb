#!/usr/bin/env bash
# Checks docker-compose.yml and the k6 scripts as far as a machine without a Docker engine and without k6 can: the compose
# file by `docker compose config` where that is installed, else by its JSON Schema; what it refers to; the scripts' syntax.
#
# Usage: deploy/check-compose.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root="$here/.."
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
tools="$cache/check-compose-python"

fail() {
  printf 'check-compose: %s\n' "$1" >&2
  exit 1
}

# A Python environment knows its own path, so it is built in place; the mark written last says that it is whole.
fetch_tools() {
  local made_from
  # The interpreter belongs to the mark: an environment of a removed Python does not start.
  made_from=$({ cat "$here/check-compose-requirements.txt" && python3 --version; } | sha256sum | cut -d ' ' -f 1)
  mkdir -p "$cache"
  exec 9>"$cache/.check-compose.lock"
  flock 9
  if [[ -f "$tools/made-from.sha256" && $(<"$tools/made-from.sha256") == "$made_from" ]] &&
    "$tools/bin/python" -c '' 2>/dev/null; then
    return
  fi
  rm -rf "$tools"
  python3 -m venv "$tools" >&2 ||
    fail "python3 cannot make a virtual environment (on Debian or Ubuntu: apt-get install python3-venv)"
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$here/check-compose-requirements.txt" >&2 ||
    fail "pip could not fetch the checking tools (its output is above)"
  printf '%s\n' "$made_from" >"$tools/made-from.sha256"
}

check_compose_file() {
  local compose_file="$root/docker-compose.yml"
  if docker compose version >/dev/null 2>&1; then
    # Values for the variables without a default: nothing is started with them.
    NEONHUB_BOOTSTRAP_WRITE_KEY=check NEONHUB_BOOTSTRAP_API_KEY=check NEONHUB_CLICKHOUSE_PASSWORD=check NEONHUB_KEY_SECRET=check NEONHUB_CLICKHOUSE_READER_PASSWORD=check \
      docker compose --file "$compose_file" config --quiet || fail "docker compose refuses docker-compose.yml"
    printf 'docker-compose.yml: docker compose accepts it\n'
  else
    "$tools/bin/check-jsonschema" --quiet --builtin-schema vendor.compose-spec "$compose_file" ||
      fail "docker-compose.yml does not match the compose schema"
    printf 'docker-compose.yml: matches the compose schema (docker compose is not installed)\n'
  fi
  "$tools/bin/python" "$here/check_compose_references.py" "$compose_file" ||
    fail "docker-compose.yml refers to what is not there, or has a default for a secret"
  printf 'docker-compose.yml: its references hold, no secret has a default\n'
}

check_k6_scripts() {
  local script copy name
  for script in "$root"/load-tests/*.js "$root"/load-tests/lib/*.js; do
    name=${script#"$root"/}
    # Node takes a file for a module by its name.
    copy="$copies/$(basename "$script" .js).mjs"
    cp "$script" "$copy"
    node --check "$copy" || fail "$name is not JavaScript that parses"
    printf '%s: parses\n' "$name"
  done
}

command -v python3 >/dev/null || fail "python3 is missing (on Debian or Ubuntu: apt-get install python3 python3-venv)"
command -v node >/dev/null || fail "node is missing (on Debian or Ubuntu: apt-get install nodejs)"
copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT
fetch_tools
check_compose_file
check_k6_scripts
