#!/usr/bin/env bash
# Unpacks a Debian package into a folder of its name in the cache folder, with what it needs that this machine lacks, and prints
# that folder; nothing is installed. Does nothing when it is there.
#
# Usage: deploy/fetch-package.sh kcat
set -euo pipefail

name=$1
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
target="$cache/$name"

fail() {
  printf 'fetch-package: %s\n' "$1" >&2
  exit 1
}

download() {
  local packages
  packages=$(apt-get install --simulate --no-install-recommends "$name" 2>/dev/null | awk '$1 == "Inst" { print $2 }') || return 1
  # shellcheck disable=SC2086 # one word a package
  (cd "$1" && apt-get download ${packages:-"$name"} >&2)
}

mkdir -p "$cache"
# One fetch at a time; the folder appears under its final name only when it is whole.
exec 9>"$cache/.$name.lock"
flock 9
rm -rf "$cache/.$name".??????
if [[ ! -d $target/usr ]]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "no apt-get and dpkg-deb to get Debian's $name with"
  printf 'fetching %s…\n' "$name" >&2
  unfinished=$(mktemp -d "$cache/.$name.XXXXXX")
  # The lists may be missing, as in a fresh image, or so old that their files are gone.
  download "$unfinished" || { [[ $(id -u) == 0 ]] && apt-get update >&2 && download "$unfinished"; } ||
    fail "apt-get could not download $name (its output is above; it may need apt-get update)"
  for package in "$unfinished"/*.deb; do
    dpkg-deb --extract "$package" "$unfinished"
    rm "$package"
  done
  chmod 755 "$unfinished"
  rm -rf "$target"
  mv -T "$unfinished" "$target"
fi
printf '%s\n' "$target"
