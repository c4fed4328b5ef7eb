#!/usr/bin/env bash
# Says which tools are missing to build and set up NeonHub, and how to install them on Debian.
set -euo pipefail

missing=()
need() {
    command -v "$1" >/dev/null 2>&1 || missing+=("$1 ($2)")
}

need cc 'apt-get install gcc'
need g++ 'apt-get install g++'
need make 'apt-get install make'
need npm 'apt-get install npm'
need valgrind 'apt-get install valgrind'
need python3 'apt-get install python3 python3-pip python3-venv'

if [ "${#missing[@]}" -gt 0 ]; then
    printf 'missing: %s\n' "${missing[@]}" >&2
    exit 1
fi
