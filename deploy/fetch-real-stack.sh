#!/usr/bin/env bash
# Copies the jars of Apache Kafka and Apache Cassandra from Maven Central into the cache folder, where the tests on real
# servers find them. Prints the folders. Does nothing when they are there and made from today's pom.
#
# Usage: deploy/fetch-real-stack.sh [kafka|cassandra]...     (default: both)
set -euo pipefail

readonly kafka_version=4.3.1
readonly cassandra_version=5.0.8

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"

fail() {
  printf 'fetch-real-stack: %s\n' "$1" >&2
  exit 1
}

require_java_and_maven() {
  local install='on Debian or Ubuntu: apt-get install openjdk-17-jre-headless maven'
  command -v java >/dev/null || fail "java is missing; the tests on real servers need Java 17 or newer ($install)"
  command -v mvn >/dev/null || fail "mvn (Maven) is missing; it fetches the servers' jars ($install)"
  local java_banner java_major
  java_banner=$(java -version 2>&1) || fail "java does not start: $java_banner"
  # 'openjdk version "17.0.15" …' gives 17; the old scheme '1.8.0' gives 1, which is too old as well.
  java_major=$(sed -n 's/.*version "\([0-9][0-9]*\).*/\1/p' <<<"$java_banner" | head -n 1)
  [[ -n $java_major ]] || fail "cannot read the version from: $java_banner"
  ((java_major >= 17)) || fail "java is version $java_major, but Java 17 or newer is needed ($install)"
}

# fetch NAME VERSION: the folder appears under its final name only when it is whole.
fetch() {
  local name=$1 version=$2
  local pom="$here/real-stack/$name/pom.xml" target="$cache/$name-$version"
  local pom_hash
  grep -q "<version>$version</version>" "$pom" || fail "$pom does not name version $version"
  pom_hash=$(sha256sum <"$pom" | cut -d ' ' -f 1)
  if [[ -f "$target/pom.sha256" && $(<"$target/pom.sha256") == "$pom_hash" ]]; then
    printf '%s\n' "$target"
    return
  fi
  printf 'fetching %s %s from Maven Central…\n' "$name" "$version" >&2
  local unfinished
  unfinished=$(mktemp -d "$cache/.$name-$version.XXXXXX")
  mvn -q -B -f "$pom" dependency:copy-dependencies -DoutputDirectory="$unfinished/lib" >&2 ||
    fail "Maven could not fetch $name $version (its output is above)"
  printf '%s\n' "$pom_hash" >"$unfinished/pom.sha256"
  rm -rf "$target"
  mv -T "$unfinished" "$target"
  printf '%s\n' "$target"
}

require_java_and_maven
mkdir -p "$cache"
# One fetch at a time: whoever waits finds the work done. An interrupted run leaves only dot folders, swept here.
exec 9>"$cache/.real-stack.lock"
flock 9
rm -rf "$cache"/.kafka-[0-9]*.* "$cache"/.cassandra-[0-9]*.*

if (($# == 0)); then
  set -- kafka cassandra
fi
for server in "$@"; do
  case "$server" in
  kafka) fetch kafka "$kafka_version" ;;
  cassandra) fetch cassandra "$cassandra_version" ;;
  *) fail "unknown server '$server': say kafka or cassandra" ;;
  esac
done
