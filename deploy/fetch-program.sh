#!/usr/bin/env bash
# Finds a program of Debian's for the tests and prints where it is: the one on the PATH, else that of the package of the same
# name, unpacked into the cache folder with the libraries that this machine lacks; nothing is installed.
#
# Usage: deploy/fetch-program.sh kcat -V
#        deploy/fetch-program.sh redis-server --version
set -euo pipefail

name=$1
version_flag=$2
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
target="$cache/$name"

fail() {
  printf 'fetch-program: %s\n' "$1" >&2
  exit 1
}

# The package, and what it needs that is not installed.
download() {
  local packages
  packages=$(apt-get install --simulate --no-install-recommends "$name" 2>/dev/null | awk '$1 == "Inst" { print $2 }') || return 1
  # shellcheck disable=SC2086 # one word a package
  [[ -n $packages ]] && (cd "$1" && apt-get download $packages >&2)
}

write_program() {
  cat >"$1/$name" <<PROGRAM
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
for folder in "\$here"/usr/lib/*-linux-gnu; do
  LD_LIBRARY_PATH="\$folder\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
done
export LD_LIBRARY_PATH
exec "\$here/usr/bin/$name" "\$@"
PROGRAM
  chmod 755 "$1/$name"
}

if command -v "$name"; then exit 0; fi

mkdir -p "$cache"
# One fetch at a time; the folder appears under its final name only when it is whole.
exec 9>"$cache/.$name.lock"
flock 9
rm -rf "$cache/.$name".??????
if [[ ! -x $target/$name ]]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "no $name on the PATH, and no apt-get and dpkg-deb to get Debian's: install $name"
  printf 'fetching %s…\n' "$name" >&2
  unfinished=$(mktemp -d "$cache/.$name.XXXXXX")
  # The lists may be missing, as in a fresh image, or so old that their files are gone.
  download "$unfinished" || { [[ $(id -u) == 0 ]] && apt-get update >&2 && download "$unfinished"; } ||
    fail "apt-get could not download $name (its output is above)"
  for package in "$unfinished"/*.deb; do
    dpkg-deb --extract "$package" "$unfinished"
    rm "$package"
  done
  # It may be a link to a program of a package that is installed, and so was not downloaded.
  program="$unfinished/usr/bin/$name"
  if [[ -L $program && ! -e $program ]]; then
    ln -sf "$(command -v "$(basename "$(readlink "$program")")")" "$program"
  fi
  write_program "$unfinished"
  chmod 755 "$unfinished"
  "$unfinished/$name" "$version_flag" >/dev/null || fail "the unpacked $name does not start (its output is above)"
  mv -T "$unfinished" "$target"
fi
printf '%s\n' "$target/$name"
