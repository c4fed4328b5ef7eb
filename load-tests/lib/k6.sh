# Sourced by ../run.sh. Builds k6 once into the cache folder, from its source, whose hash Go checks.

readonly k6_version=1.6.0

# Prints k6's path.
k6_path() {
  local cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
  local target="$cache/k6-$k6_version" go unfinished
  if [[ -x $target/k6 ]]; then
    printf '%s\n' "$target/k6"
    return
  fi
  go=$(command -v go || command -v /usr/local/go/bin/go) ||
    fail "go is missing; it builds k6 (Go 1.24 or newer; on Debian or Ubuntu: apt-get install golang-go)"
  mkdir -p "$cache"
  # One build at a time: whoever waits finds the work done. An interrupted one leaves only a dot folder, swept here.
  exec 9>"$cache/.k6.lock"
  flock 9
  if [[ ! -x $target/k6 ]]; then
    rm -rf "$cache"/.k6-[0-9]*.*
    printf 'building k6 %s, once…\n' "$k6_version" >&2
    unfinished=$(mktemp -d "$cache/.k6-$k6_version.XXXXXX")
    GOBIN="$unfinished" CGO_ENABLED=0 "$go" install "go.k6.io/k6@v$k6_version" >&2 ||
      fail "go could not build k6 $k6_version (its output is above)"
    chmod a+rx "$unfinished"
    mv -T "$unfinished" "$target"
  fi
  exec 9>&-
  printf '%s\n' "$target/k6"
}
