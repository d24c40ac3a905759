#!/usr/bin/env bash
# Check and measure Helios on an accelerator, in one command that ends inside eight minutes.
#
#   WHEELS=wheels benchmarks/gpu.sh                      # a bare machine: Python 3.12, torch 2.11, no network
#   DEVICE=cpu MODEL=small-random benchmarks/gpu.sh      # the same steps, small, on the CPU
#
# WHEELS   folder of wheels for what the machine lacks; nothing is downloaded. On a machine with torch, transformers,
#          matplotlib and typer: diffusers av ftfy wcwidth requests charset-normalizer importlib_metadata (45 MB)
# DEVICE   auto (default), cpu, or an accelerator's name     MODEL    14b-random (default), small-random, tiny-random
# RESULTS  folder for the JSON (default: benchmarks/results/gpu)     LIMIT_S  no new measurement after that many seconds
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
python=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH="$site:$PYTHONPATH"
fi
"$python" benchmarks/gpu.py --device "${DEVICE:-auto}" --model "${MODEL:-14b-random}" \
    --results "${RESULTS:-benchmarks/results/gpu}" --limit-s "${LIMIT_S:-400}"
