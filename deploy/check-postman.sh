#!/usr/bin/env bash
# Makes a Postman collection of the OpenAPI documents of a NeonHub of its own, and plays it there with newman: every answer must
# have a status that the document declares, and none may be 5xx. The live feeds are left out: they do not end. Leaves the
# collection in target/postman, to be imported into Postman.
#
# Usage: deploy/check-postman.sh [--strict]   --strict: every request must succeed, and have an example
#        NEONHUB_BIN names the binary (default: target/debug/neonhub)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
tools="$cache/postman-node"
collection="${CARGO_TARGET_DIR:-$root/target}/postman/neonhub.postman_collection.json"

fail() {
  printf 'check-postman: %s\n' "$1" >&2
  exit 1
}

case "${1:-}" in '' | --strict) ;; *) fail "unknown argument '$1': say --strict, or nothing" ;; esac
for tool in curl node npm python3; do
  command -v "$tool" >/dev/null || fail "$tool is missing (on Debian or Ubuntu: apt-get install curl nodejs npm python3)"
done
neonhub=$(realpath "${NEONHUB_BIN:-$root/target/debug/neonhub}")
[[ -x $neonhub ]] || fail "$neonhub is not there: build it, or name another in NEONHUB_BIN"

# In a dot folder until it is whole; one fetch at a time.
fetch_tools() {
  local made_from unfinished
  made_from=$(cat "$here/postman/package.json" "$here/postman/package-lock.json" | sha256sum | cut -d ' ' -f 1)
  mkdir -p "$cache"
  exec 9>"$cache/.postman-node.lock"
  flock 9
  if [[ ! -f "$tools/made-from.sha256" || $(<"$tools/made-from.sha256") != "$made_from" ]]; then
    printf 'fetching newman and openapi-to-postmanv2…\n' >&2
    rm -rf "$cache"/.postman-node.??????
    unfinished=$(mktemp -d "$cache/.postman-node.XXXXXX")
    cp "$here/postman/"{package.json,package-lock.json,.npmrc} "$unfinished/"
    npm ci --prefix "$unfinished" --no-audit --no-fund --ignore-scripts --loglevel=error >&2 ||
      fail "npm could not fetch the tools (its output is above)"
    printf '%s\n' "$made_from" >"$unfinished/made-from.sha256"
    rm -rf "$tools"
    mv -T "$unfinished" "$tools"
  fi
  exec 9>&-
}

# What a shell has set for a NeonHub of its own must not reach this one.
for name in "${!NEONHUB_@}"; do
  case "$name" in NEONHUB_LIBCHDB | NEONHUB_CACHE_DIR) ;; *) unset "$name" ;; esac
done
# For stack.sh: the embedded log.
# shellcheck disable=SC2034
kafka_brokers=
# shellcheck source=load-tests/lib/stack.sh
source "$root/load-tests/lib/stack.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/neonhub-postman-XXXXXX")
end() {
  stop_neonhub
  rm -rf "$work"
}
trap end EXIT
trap 'exit 1' INT TERM

fetch_tools
NEONHUB_BOOTSTRAP_WEBHOOK_SECRET="whsec_$(head -c 32 /dev/urandom | base64)"
export NEONHUB_BOOTSTRAP_WEBHOOK_SECRET WEBHOOK_SECRET=$NEONHUB_BOOTSTRAP_WEBHOOK_SECRET
start_neonhub "$neonhub" "$work/neonhub.log"
curl --silent --fail "$INGEST_URL/openapi.json" >"$work/ingest.json" || fail "ingest does not give its OpenAPI document"
curl --silent --fail "$API_URL/openapi.json" >"$work/api.json" || fail "the query API does not give its OpenAPI document"
mkdir -p "$(dirname "$collection")"
export NODE_PATH="$tools/node_modules"
node "$here/postman/collection.js" "$work/ingest.json" "$work/api.json" "$collection" || fail "no collection could be made"
node "$here/postman/play.js" "$collection" "$@" || fail "not every answer was as the documents say; the collection is $collection"
printf 'the collection is %s\n' "$collection"
