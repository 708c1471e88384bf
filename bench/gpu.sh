#!/usr/bin/env bash
# Everything that needs a GPU to be known, in under ten minutes: bench/gpu.sh --out DIR [--toy] [--parts a b c]
# [--limit SECONDS] [--model FOLDER]. Runs from the bare tree; see bench/gpu/suite.py.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -P -m bench.gpu.suite "$@"
