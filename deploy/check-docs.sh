#!/usr/bin/env bash
# Checks the documentation: that docs/reference is what the code says, and that what the Markdown files refer to is there.
#
# Usage: deploy/check-docs.sh     NEONHUB_BIN names the binary (default: target/debug/neonhub)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# First: commands are looked up in docs/reference/cli.md.
"$here/reference.sh" --check
python3 "$here/check_links.py"
