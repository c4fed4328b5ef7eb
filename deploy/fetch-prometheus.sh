#!/usr/bin/env bash
# Finds Debian's Prometheus for the checks of rules and dashboards and prints the folder of its programs
# (deploy/fetch-package.sh).
#
# Usage: deploy/fetch-prometheus.sh
set -euo pipefail

folder=$("$(dirname "${BASH_SOURCE[0]}")/fetch-package.sh" prometheus | tail -n 1)
printf '%s/usr/bin\n' "$folder"
