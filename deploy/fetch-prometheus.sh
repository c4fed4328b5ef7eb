#!/usr/bin/env bash
# Unpacks Debian's Prometheus into the cache folder, where the checks of rules and dashboards find it; nothing is installed.
# Prints the folder of its programs. Does nothing when they are there.
#
# Usage: deploy/fetch-prometheus.sh
set -euo pipefail

cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
target="$cache/prometheus"

mkdir -p "$cache"
# One fetch at a time; the folder appears under its final name only when it is whole.
exec 9>"$cache/.prometheus.lock"
flock 9
rm -rf "$cache"/.prometheus.??????
if [[ ! -x $target/usr/bin/promtool ]]; then
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "fetch-prometheus: apt-get and dpkg-deb are missing; promtool comes from Debian's package prometheus" >&2
    exit 1
  fi
  unfinished=$(mktemp -d "$cache/.prometheus.XXXXXX")
  download() { (cd "$unfinished" && apt-get download prometheus >&2); }
  # A fresh machine has no lists of packages.
  download || { apt-get update >&2 && download; } || {
    echo "fetch-prometheus: apt-get could not download prometheus (its output is above)" >&2
    exit 1
  }
  dpkg-deb --extract "$unfinished"/prometheus_*.deb "$unfinished"
  rm "$unfinished"/prometheus_*.deb
  chmod 755 "$unfinished"
  mv -T "$unfinished" "$target"
fi
printf '%s\n' "$target/usr/bin"
