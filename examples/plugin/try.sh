#!/usr/bin/env bash
# The plug-in as somebody else would use it: installed beside evoquant, its tests, its campaign on Ray, its export.
#
#   bash examples/plugin/try.sh                        in an environment made for it
#   EVOQUANT_VENV=DIR bash examples/plugin/try.sh      in one that has evoquant already
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH RAY_ADDRESS

venv=${EVOQUANT_VENV:-$work/venv}
pip=("$venv/bin/python" -m pip install -q --disable-pip-version-check -c "$root/constraints.txt")
if [ -z "${EVOQUANT_VENV:-}" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    mkdir "$work/evoquant" # a copy: a build leaves files where it builds
    cp -r "$root"/{pyproject.toml,README.md,LICENSE,evoquant} "$work/evoquant"
    "${pip[@]}" "$work/evoquant"
fi
cp -r "$here" "$work/plugin"
"${pip[@]}" "$work/plugin[test]"

mkdir "$work/empty"
cd "$work/empty"
"$venv/bin/python" - "$root" <<'PYTHON'
import sys

import evoquant_example_plugin

home = evoquant_example_plugin.__file__
assert not home.startswith(sys.argv[1]), f"the plug-in comes from {home}, not from where it was installed"
PYTHON
"$venv/bin/python" -m pytest -q -p no:cacheprovider "$work/plugin/tests"

evoquant=$venv/bin/evoquant
code=(--allow-code evoquant_example_plugin:Annealing --allow-code evoquant_example_plugin:Latency)
"$evoquant" run "$work/plugin/campaign.yaml" --out on-ray >/dev/null
"$evoquant" run "$work/plugin/campaign.yaml" --out locally --executor local >/dev/null
cmp on-ray/journal.jsonl locally/journal.jsonl
echo "two Ray workers and none give the same journal: $(wc -l <on-ray/journal.jsonl) generations"
"$evoquant" report on-ray "${code[@]}" | tail -n 10
to=(--to evoquant_example_plugin:Markdown --profile seed/test)
"$evoquant" export on-ray "${to[@]}" "${code[@]}" -o on-ray.md
"$evoquant" export locally "${to[@]}" "${code[@]}" -o locally.md
cmp on-ray.md locally.md
head -n 8 on-ray.md
