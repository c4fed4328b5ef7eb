#!/bin/sh
# Fetches libchdb (the ClickHouse engine as a library) once, through npm, and prints where it is as the last line.
#
#   NEONHUB_LIBCHDB      a libchdb.so of your own: only checked to exist
#   NEONHUB_CACHE_DIR    the cache folder (default: ${XDG_CACHE_HOME:-$HOME/.cache}/neonhub)
set -eu

VERSION='26.7.3-stable.1'
# npm's integrity of the package below: base64 of the archive's SHA-512.
INTEGRITY='sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=='

fail() {
    echo "fetch-libchdb: $*" >&2
    exit 1
}

if [ -n "${NEONHUB_LIBCHDB:-}" ]; then
    [ -f "$NEONHUB_LIBCHDB" ] || fail "NEONHUB_LIBCHDB=$NEONHUB_LIBCHDB is no file"
    echo "$NEONHUB_LIBCHDB"
    exit 0
fi

platform="$(uname -s)-$(uname -m)"
[ "$platform" = 'Linux-x86_64' ] ||
    fail "libchdb is pinned for Linux-x86_64, this is $platform: set NEONHUB_LIBCHDB to a libchdb.so of version $VERSION"
PACKAGE="@chdb/lib-linux-x64-gnu@$VERSION"

if [ -n "${NEONHUB_CACHE_DIR:-}" ]; then
    cache="$NEONHUB_CACHE_DIR"
else
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/neonhub"
fi
target="$cache/libchdb-$VERSION"
library="$target/libchdb.so"

# The folder is renamed into place when it is complete, so its presence is enough.
if [ -f "$library" ] && [ -f "$library.sha256" ]; then
    echo "$library"
    exit 0
fi

for tool in npm tar openssl sha256sum; do
    command -v "$tool" >/dev/null 2>&1 || fail "needs $tool"
done
mkdir -p "$cache"
work="$(mktemp -d "$cache/.libchdb-XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

echo "Fetching $PACKAGE (178 MB) …" >&2
(cd "$work" && npm pack --silent "$PACKAGE" >/dev/null) || fail "npm could not fetch $PACKAGE"
archive="$(find "$work" -maxdepth 1 -name '*.tgz')"
[ -f "$archive" ] || fail 'npm left no archive'
actual="sha512-$(openssl dgst -sha512 -binary "$archive" | openssl base64 -A)"
[ "$actual" = "$INTEGRITY" ] || fail "the archive's integrity is $actual, not $INTEGRITY: nothing was unpacked"

mkdir "$work/unpacked"
tar -xzf "$archive" -C "$work/unpacked" --strip-components=1 package/libchdb.so
rm -f "$archive"
(cd "$work/unpacked" && sha256sum libchdb.so >libchdb.so.sha256)
if ! mv -T "$work/unpacked" "$target" 2>/dev/null; then
    # Somebody else was quicker, or an incomplete folder of old is in the way.
    if [ ! -f "$library.sha256" ]; then
        rm -rf "$target"
        mv -T "$work/unpacked" "$target"
    fi
fi
echo "$library"
