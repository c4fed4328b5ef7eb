#!/usr/bin/env bash
# Checks deploy/k8s as far as a machine without a cluster can: each overlay is built by kustomize, its documents are held against
# Kubernetes' schemas, and check_k8s.py looks at what a schema cannot see.
#
# Usage: deploy/check-k8s.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
tools="$cache/check-k8s-python"
version=5.6.0
kustomize="$cache/kustomize-$version/kustomize"

fail() {
  printf 'check-k8s: %s\n' "$1" >&2
  exit 1
}

# A Python environment knows its own path, so it is built in place; the mark written last says that it is whole.
fetch_python_tools() {
  local made_from
  # The interpreter belongs to the mark: an environment of a removed Python does not start.
  made_from=$({ cat "$here/check-k8s-requirements.txt" && python3 --version; } | sha256sum | cut -d ' ' -f 1)
  if [[ -f "$tools/made-from.sha256" && $(<"$tools/made-from.sha256") == "$made_from" ]] &&
    "$tools/bin/python" -c '' 2>/dev/null; then
    return
  fi
  rm -rf "$tools"
  python3 -m venv "$tools" >&2 ||
    fail "python3 cannot make a virtual environment (on Debian or Ubuntu: apt-get install python3-venv)"
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$here/check-k8s-requirements.txt" >&2 ||
    fail "pip could not fetch the checking tools (its output is above)"
  printf '%s\n' "$made_from" >"$tools/made-from.sha256"
}

# Go checks the module against its checksum database. The folder appears under its final name only when it is whole.
fetch_kustomize() {
  local go unfinished
  [[ -x $kustomize ]] && return
  go=$(command -v go || printf /usr/local/go/bin/go)
  [[ -x $go ]] || fail "go is missing: install Go 1.23 or newer"
  rm -rf "$cache"/.kustomize.??????
  unfinished=$(mktemp -d "$cache/.kustomize.XXXXXX")
  # A Go of another version than the module asks for would otherwise be fetched without a word.
  GOBIN="$unfinished" GOFLAGS= GOTOOLCHAIN=local "$go" install "sigs.k8s.io/kustomize/kustomize/v5@v$version" >&2 ||
    fail "go could not build kustomize $version (its output is above)"
  chmod 755 "$unfinished"
  mv -T "$unfinished" "$(dirname "$kustomize")"
}

check_overlay() {
  local overlay=$1 rendered="$scratch/$1.yaml"
  "$kustomize" build "$here/k8s/overlays/$overlay" >"$rendered" || fail "kustomize cannot build overlays/$overlay"
  "$tools/bin/python" "$here/check_k8s.py" "$rendered" || fail "overlays/$overlay is not as it should be"
  printf 'deploy/k8s/overlays/%s: %s documents match the schemas, each other and the code\n' \
    "$overlay" "$(grep -c '^kind:' "$rendered")"
}

command -v python3 >/dev/null || fail "python3 is missing (on Debian or Ubuntu: apt-get install python3 python3-venv)"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$cache"
# One fetch at a time.
exec 9>"$cache/.check-k8s.lock"
flock 9
fetch_python_tools
fetch_kustomize
for folder in "$here"/k8s/overlays/*/; do
  check_overlay "$(basename "$folder")"
done
