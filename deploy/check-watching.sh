#!/usr/bin/env bash
# Checks what NeonHub is watched with: Prometheus' configuration, the rules and their tests by promtool, the dashboards'
# expressions, and that everything they name is there.
#
# Usage: deploy/check-watching.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
promtool="$("$here/fetch-prometheus.sh" | tail -n 1)/promtool"

"$promtool" check config "$here/prometheus/prometheus.yml"
"$promtool" test rules "$here/prometheus/alerts.test.yml"
expressions=$(mktemp --suffix=.yml)
trap 'rm -f "$expressions"' EXIT
python3 "$here/check_watching.py" "$expressions"
"$promtool" check rules "$expressions"
