#!/usr/bin/env bash
# Finds a Chromium for the browser test and prints its program: the one that NEONHUB_CHROMIUM names, else one on the PATH, else
# Debian's, unpacked into the cache folder with the libraries that this machine lacks; nothing is installed.
#
# Usage: deploy/fetch-chromium.sh
set -euo pipefail

cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
target="$cache/chromium"

fail() {
  printf 'fetch-chromium: %s\n' "$1" >&2
  exit 1
}

# The package, and what it needs that is not installed.
download() {
  local packages
  packages=$(apt-get install --simulate --no-install-recommends chromium 2>/dev/null | awk '$1 == "Inst" { print $2 }') || return 1
  # shellcheck disable=SC2086 # one word a package
  [[ -n $packages ]] && (cd "$1" && apt-get download $packages >&2)
}

# Debian's own start script wants /usr/lib/chromium; the fonts' settings are beside the unpacked fonts.
write_program() {
  cat >"$1/chromium" <<'PROGRAM'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
for folder in "$here"/usr/lib/*-linux-gnu "$here"/usr/lib/*-linux-gnu/pulseaudio; do
  LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
done
export LD_LIBRARY_PATH
if [ ! -e /etc/fonts/fonts.conf ]; then export FONTCONFIG_PATH="$here/etc/fonts"; fi
exec "$here/usr/lib/chromium/chromium" "$@"
PROGRAM
  chmod 755 "$1/chromium"
}

if [[ -n ${NEONHUB_CHROMIUM:-} ]]; then
  [[ -x $NEONHUB_CHROMIUM ]] || fail "NEONHUB_CHROMIUM names no program: $NEONHUB_CHROMIUM"
  printf '%s\n' "$NEONHUB_CHROMIUM"
  exit 0
fi
for name in chromium chromium-browser google-chrome; do
  if command -v "$name"; then exit 0; fi
done

mkdir -p "$cache"
# One fetch at a time; the folder appears under its final name only when it is whole.
exec 9>"$cache/.chromium.lock"
flock 9
rm -rf "$cache"/.chromium.??????
if [[ ! -x $target/chromium ]]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "no Chromium on the PATH, and no apt-get and dpkg-deb to get Debian's: install Chromium, or name one in NEONHUB_CHROMIUM"
  printf 'fetching Chromium…\n' >&2
  unfinished=$(mktemp -d "$cache/.chromium.XXXXXX")
  # The lists may be missing, as in a fresh image, or so old that their files are gone.
  download "$unfinished" || { [[ $(id -u) == 0 ]] && apt-get update >&2 && download "$unfinished"; } ||
    fail "apt-get could not download chromium (its output is above; it may need apt-get update)"
  for package in "$unfinished"/*.deb; do
    dpkg-deb --extract "$package" "$unfinished"
    rm "$package"
  done
  write_program "$unfinished"
  chmod 755 "$unfinished"
  "$unfinished/chromium" --version >/dev/null || fail "the unpacked Chromium does not start (its output is above)"
  mv -T "$unfinished" "$target"
fi
printf '%s\n' "$target/chromium"
