#!/usr/bin/env bash
# Everything that needs a CUDA device, in one call of at most ten minutes, unattended:
#
#   bash benchmarks/gpu.sh [FOLDER]        (default build/gpu; PYTHON=... chooses the interpreter)
#
# NOT YET RUN ON A GPU: written on a machine without one. Its Python parts have been run on a CPU.
#
#   tests.txt      the tests marked gpu
#   waits.txt,     images per second, peak memory and waits for the device (CUDA sync debug mode) of
#   memory.md      every method at 64 and 256 pixels
#   graphs/        the same with trainer.graphs=true, and compiled/ with trainer.compile=true, at 64
#   official.md    our step against the published loops: fp32, bf16-mixed, peak memory
#   summary.txt    what passed, and how long it took
#
# A part that runs out of time leaves what it has; the exit code is 1 if any part failed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/gpu}
python=${PYTHON:-python}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} WANDB_MODE=disabled GANSUITE_CACHE=$PWD/build/cache
failed=0

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "There is no CUDA device (or a PyTorch without CUDA)." | tee "$out/summary.txt"
    exit 2
}
{
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    "$python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)'
    git rev-parse HEAD
} >"$out/summary.txt" 2>&1

part() { # name, seconds, command ...
    local name=$1 seconds=$2 begin=$SECONDS code
    shift 2
    timeout -k 10 "$seconds" "$@" >"$out/$name.txt" 2>&1
    code=$?
    [ "$code" -eq 0 ] || failed=1
    echo "$name: exit $code after $((SECONDS - begin)) s (at most $seconds)" | tee -a "$out/summary.txt"
}

part tests 90 "$python" -m pytest -m gpu -n 0 -q
part waits 150 "$python" benchmarks/memory.py --device cuda --size 64 256 --out "$out"
part graphs 70 "$python" benchmarks/memory.py --device cuda --size 64 --set trainer.graphs=true --out "$out/graphs"
part compiled 80 "$python" benchmarks/memory.py --device cuda --size 64 --set trainer.compile=true --out "$out/compiled"
part official 200 "$python" benchmarks/official.py --device cuda --size 64 256 --rounds 2 --seconds 0.5 --bf16 trainer.penalties=mixed --out "$out"
exit $failed
