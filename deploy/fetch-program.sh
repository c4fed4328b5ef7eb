#!/usr/bin/env bash
# Finds kcat, the command-line client of Kafka, for the tests and prints its program: the one on the PATH, else Debian's,
# unpacked into the cache folder with the libraries that this machine lacks; nothing is installed.
#
# Usage: deploy/fetch-kcat.sh
set -euo pipefail

cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
target="$cache/kcat"

fail() {
  printf 'fetch-kcat: %s\n' "$1" >&2
  exit 1
}

# The package, and what it needs that is not installed.
download() {
  local packages
  packages=$(apt-get install --simulate --no-install-recommends kcat 2>/dev/null | awk '$1 == "Inst" { print $2 }') || return 1
  # shellcheck disable=SC2086 # one word a package
  [[ -n $packages ]] && (cd "$1" && apt-get download $packages >&2)
}

write_program() {
  cat >"$1/kcat" <<'PROGRAM'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
for folder in "$here"/usr/lib/*-linux-gnu; do
  LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
done
export LD_LIBRARY_PATH
exec "$here/usr/bin/kcat" "$@"
PROGRAM
  chmod 755 "$1/kcat"
}

if command -v kcat; then exit 0; fi

mkdir -p "$cache"
# One fetch at a time; the folder appears under its final name only when it is whole.
exec 9>"$cache/.kcat.lock"
flock 9
rm -rf "$cache"/.kcat.??????
if [[ ! -x $target/kcat ]]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "no kcat on the PATH, and no apt-get and dpkg-deb to get Debian's: install kcat"
  printf 'fetching kcat…\n' >&2
  unfinished=$(mktemp -d "$cache/.kcat.XXXXXX")
  # The lists may be missing, as in a fresh image, or so old that their files are gone.
  download "$unfinished" || { [[ $(id -u) == 0 ]] && apt-get update >&2 && download "$unfinished"; } ||
    fail "apt-get could not download kcat (its output is above; it may need apt-get update)"
  for package in "$unfinished"/*.deb; do
    dpkg-deb --extract "$package" "$unfinished"
    rm "$package"
  done
  write_program "$unfinished"
  chmod 755 "$unfinished"
  "$unfinished/kcat" -V >/dev/null || fail "the unpacked kcat does not start (its output is above)"
  mv -T "$unfinished" "$target"
fi
printf '%s\n' "$target/kcat"
