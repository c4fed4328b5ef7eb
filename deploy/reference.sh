#!/usr/bin/env bash
# Writes docs/reference from the code: the settings, topics and commands that the binary tells of, and the metrics and OpenAPI
# documents of a stack of its own. Metrics without a series are on no page, so names and help texts are read from the source, too.
#
# Usage: deploy/reference.sh [--check]     --check changes nothing and fails where the files are not what it would write
#        NEONHUB_BIN names the binary (default: target/debug/neonhub)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
kept="$root/docs/reference"

fail() {
  printf 'reference: %s\n' "$1" >&2
  exit 1
}

case "${1:-}" in '') check=false ;; --check) check=true ;; *) fail "unknown argument '$1': say --check, or nothing" ;; esac
for tool in curl diff jq python3; do
  command -v "$tool" >/dev/null || fail "$tool is missing (on Debian or Ubuntu: apt-get install $tool)"
done
neonhub=$(realpath "${NEONHUB_BIN:-$root/target/debug/neonhub}")
[[ -x $neonhub ]] || fail "$neonhub is not there: build it, or name another in NEONHUB_BIN"

# What a shell has set for a NeonHub of its own must not reach the pages.
for name in "${!NEONHUB_@}"; do
  case "$name" in NEONHUB_LIBCHDB | NEONHUB_CACHE_DIR) ;; *) unset "$name" ;; esac
done
# For stack.sh: the embedded log.
# shellcheck disable=SC2034
kafka_brokers=
# shellcheck source=load-tests/lib/stack.sh
source "$root/load-tests/lib/stack.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/neonhub-reference-XXXXXX")
made="$work/reference"
mkdir "$made" "$work/empty"
end() {
  stop_neonhub
  rm -rf "$work"
}
trap end EXIT
trap 'exit 1' INT TERM

# From a folder without a neonhub.toml, and under its own name: help says what the program was called.
ask() { (cd "$work/empty" && exec -a neonhub "$neonhub" "$@"); }

heading() { printf '# %s\n\n<!-- Written by deploy/reference.sh. Change the code instead. -->\n\n' "$1"; }

# What a table's cell cannot hold: a bar would end it, and __this__ would be bold.
cells() { sed -E 's/[|]/\\|/g; s/(__\w+__)/`\1`/g'; }

settings_page() {
  heading Settings
  printf 'Where values come from, and which of them are secret: [README](../../README.md#settings).\n\n'
  printf '| name | default | meaning |\n|---|---|---|\n'
  # The default begins at the 42nd character; a blank there is no default.
  ask settings | cells | awk '{
    rest = substr($0, 42); value = "–"
    if (rest !~ /^ /) { value = "`" $2 "`"; sub(/^[^ ]+/, "", rest) }
    sub(/^ +/, "", rest)
    printf "| `%s` | %s | %s |\n", $1, value, rest
  }'
}

topics_page() {
  heading Topics
  printf 'With the default of `NEONHUB_PARTITIONS`. What lies on them: [contract](../contract.md#topics).\n\n'
  printf '| topic | partitions, retention | key | written by → read by |\n|---|---|---|---|\n'
  ask graph | cells | awk -F '  +' '
    NF != 4 { print "reference: not four columns: " $0 >"/dev/stderr"; exit 1 }
    { sub(/^key /, "", $3); printf "| `%s` | %s | %s | %s |\n", $1, $2, $3, $4 }'
}

# help_of HEADING COMMAND…: its help, and that of every command below it.
help_of() {
  local level=$1 text name
  shift
  text=$(ask help "$@" | sed 's/ *$//')
  printf '\n%s neonhub%s\n\n```text\n%s\n```\n' "$level" "${*:+ $*}" "$text"
  for name in $(awk '/^Commands:$/ { on = 1; next } !/^  [a-z]/ { on = 0 } on && $1 != "help" { print $1 }' <<<"$text"); do
    help_of "$level#" "$@" "$name"
  done
}

cli_page() {
  heading Commands
  printf 'In short, and the exit codes: [README](../../README.md#commands-and-exit-codes).\n'
  help_of '##'
}

# Enough that whatever counts by stage, partition or table has a series.
send_events() {
  local path_and_body
  for path_and_body in 'track {"userId":"u","event":"e"}' 'campaigns/events {"type":"click","campaign":"c"}'; do
    curl --silent --fail --user "$WRITE_KEY:" --output /dev/null --data "${path_and_body#* }" \
      "$INGEST_URL/v1/${path_and_body%% *}" || fail "ingest refuses ${path_and_body#* }"
  done
}

fetch_pages() {
  local deadline=$((SECONDS + 60)) processors
  processors=$(sed -n 's/^processors *\(http[^ ]*\).*/\1/p' "$work/neonhub.log")
  until curl --silent --fail "$processors/metrics" >"$work/processors.txt" &&
    grep -q '^neonhub_processor_watermark_delay_seconds{' "$work/processors.txt" &&
    grep -q '^neonhub_landing_rows_total{' "$work/processors.txt"; do
    ((SECONDS < deadline)) || fail "nothing landed within a minute"
    sleep 0.5
  done
  curl --silent --fail "$API_URL/metrics" >"$work/api.txt"
  curl --silent --fail "$INGEST_URL/metrics" >"$work/ingest.txt"
}

metrics_page() {
  heading Metrics
  printf 'At `/metrics` of each service. What to watch: [operations](../operations.md#alerts).\n\n'
  python3 - "$root" "$work" <<'PY'
"""Merges what the services' pages say with the names, help texts and labels in the source. Fails where the two differ."""
import re
import sys
from pathlib import Path

root, work = map(Path, sys.argv[1:])
SERVICES = {"ingest": "ingest", "api": "query API", "processors": "processors", "topology": "each"}
# A name beside its help text; in the third place there may be one label.
NAMED = re.compile(r'\(\s*"(?P<name>[a-z_]+)",\s*"(?P<help>[^"]+)"(?:,\s*"(?P<label>\w+)")?')
PREFIX = re.compile(r'format!\("(neonhub_\w+_)\{name\}"\)')
LABELS = re.compile(r'&\[("[a-z_", ]+")\]')


def in_source():
    for path in sorted(root.glob("*/src/**/*.rs")):
        text = path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests")[0]
        house = path.relative_to(root).parts[0]
        if house not in SERVICES or "use prometheus" not in text:
            continue
        prefix = PREFIX.search(text)
        found = [each for each in NAMED.finditer(text) if prefix or each["name"].startswith("neonhub_")]
        for each, following in zip(found, [*found[1:], None]):
            name = each["name"] if each["name"].startswith("neonhub_") else prefix[1] + each["name"]
            labels = LABELS.search(text, each.end(), following.start() if following else each.end() + 200)
            written = each["label"] or (labels[1] if labels else "")
            yield name, {"help": each["help"], "labels": set(re.findall(r"\w+", written)), "service": SERVICES[house]}


def on_pages():
    pages = {}
    for service in ("ingest", "api", "processors"):
        for line in (work / f"{service}.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                _, what, name, rest = line.split(" ", 3)
                metric = pages.setdefault(name, {"labels": set()})
                metric[what.lower()] = rest
            else:
                metric["labels"] |= set(re.findall(r'(\w+)="', line)) - {"le"}
    return pages


source, pages, rows = dict(in_source()), on_pages(), []
wrong = [f"{name} is on a page and not found in the source" for name in pages.keys() - source.keys()]
for name, told in sorted(source.items()):
    page = pages.get(name)
    kind = page["type"] if page else "counter" if name.endswith("_total") else None
    labels = page["labels"] if page else told["labels"]
    if page and page["help"] != told["help"]:
        wrong.append(f"{name}: the page says `{page['help']}`, the source `{told['help']}`")
    if page and told["labels"] and labels != told["labels"]:
        wrong.append(f"{name}: the page has the labels {labels}, the source {told['labels']}")
    if not page and not (kind and labels):
        wrong.append(f"{name} is on no page, and the source does not tell its kind and labels")
    about = re.sub(r"(__\w+__)", r"`\1`", told["help"]).rstrip(".")
    shown = ", ".join(f"`{label}`" for label in sorted(labels))
    rows.append(f"| `{name}` | {kind} | {shown} | {told['service']} | {about} |")
if wrong:
    sys.exit("\n".join(f"reference: {each}" for each in wrong))
print("| name | kind | labels | service | what |\n|---|---|---|---|---|", *rows, sep="\n")
PY
}

openapi_document() {
  curl --silent --fail "$1/openapi.json" | jq --sort-keys . || fail "$1 does not give its OpenAPI document"
}

settings_page >"$made/settings.md"
topics_page >"$made/topics.md"
cli_page >"$made/cli.md"
start_neonhub "$neonhub" "$work/neonhub.log"
send_events
fetch_pages
metrics_page >"$made/metrics.md"
openapi_document "$INGEST_URL" >"$made/openapi-ingest.json"
openapi_document "$API_URL" >"$made/openapi-api.json"

count=$(find "$made" -type f | wc -l)
if [[ $check == true ]]; then
  diff --unified=1 --recursive --new-file "$kept" "$made" || fail "docs/reference is not what the code says: run deploy/reference.sh"
  printf 'docs/reference: %s files, as the code says\n' "$count"
else
  rm -rf "$kept"
  cp -r "$made" "$kept"
  printf 'docs/reference: %s files written\n' "$count"
fi
