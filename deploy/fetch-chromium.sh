#!/usr/bin/env bash
# Finds a Chromium for the browser test and prints its program: the one that NEONHUB_CHROMIUM names, else one on the PATH, else
# Debian's (deploy/fetch-package.sh).
#
# Usage: deploy/fetch-chromium.sh
set -euo pipefail

fail() {
  printf 'fetch-chromium: %s\n' "$1" >&2
  exit 1
}

if [[ -n ${NEONHUB_CHROMIUM:-} ]]; then
  [[ -x $NEONHUB_CHROMIUM ]] || fail "NEONHUB_CHROMIUM names no program: $NEONHUB_CHROMIUM"
  printf '%s\n' "$NEONHUB_CHROMIUM"
  exit 0
fi
for name in chromium chromium-browser google-chrome; do
  if command -v "$name"; then exit 0; fi
done

folder=$("$(dirname "${BASH_SOURCE[0]}")/fetch-package.sh" chromium | tail -n 1) ||
  fail "no Chromium on the PATH, nor Debian's: install Chromium, or name one in NEONHUB_CHROMIUM"
start="$folder/chromium"
if [[ ! -x $start ]]; then
  # Debian's own start script wants /usr/lib/chromium; the fonts' settings are beside the unpacked fonts.
  unfinished=$(mktemp "$folder/.chromium.XXXXXX")
  cat >"$unfinished" <<'PROGRAM'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
for folder in "$here"/usr/lib/*-linux-gnu "$here"/usr/lib/*-linux-gnu/pulseaudio; do
  LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
done
export LD_LIBRARY_PATH
if [ ! -e /etc/fonts/fonts.conf ]; then export FONTCONFIG_PATH="$here/etc/fonts"; fi
exec "$here/usr/lib/chromium/chromium" "$@"
PROGRAM
  chmod 755 "$unfinished"
  "$unfinished" --version >/dev/null || fail "the unpacked Chromium does not start (its output is above)"
  mv -T "$unfinished" "$start"
fi
printf '%s\n' "$start"
