#!/usr/bin/env bash
# Finds a program of Debian's for the tests and prints where it is: the one on the PATH, else that of the package of the same
# name (deploy/fetch-package.sh).
#
# Usage: deploy/fetch-program.sh kcat -V
#        deploy/fetch-program.sh redis-server --version
set -euo pipefail

name=$1
version_flag=$2

if command -v "$name"; then exit 0; fi

folder=$("$(dirname "${BASH_SOURCE[0]}")/fetch-package.sh" "$name" | tail -n 1)
start="$folder/$name"
if [[ ! -x $start ]]; then
  # It may be a link to a program of a package that is installed, and so was not downloaded.
  program="$folder/usr/bin/$name"
  if [[ -L $program && ! -e $program ]]; then
    ln -sf "$(command -v "$(basename "$(readlink "$program")")")" "$program"
  fi
  unfinished=$(mktemp "$folder/.$name.XXXXXX")
  cat >"$unfinished" <<PROGRAM
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
for folder in "\$here"/usr/lib/*-linux-gnu; do
  LD_LIBRARY_PATH="\$folder\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
done
export LD_LIBRARY_PATH
exec "\$here/usr/bin/$name" "\$@"
PROGRAM
  chmod 755 "$unfinished"
  "$unfinished" "$version_flag" >/dev/null || {
    printf 'fetch-program: the unpacked %s does not start (its output is above)\n' "$name" >&2
    exit 1
  }
  mv -T "$unfinished" "$start"
fi
printf '%s\n' "$start"
