#!/usr/bin/env bash
# The suites `embed` and `search` beside PyTorch on CUDA, on a machine with a GPU: vectors.sh MODEL_FOLDER OUTPUT_FOLDER.
# Python with torch and sentence-transformers is needed for the baselines; without it they are left out, and it says so.
set -euo pipefail
model=$(realpath "$1")
output=$2
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
arguments=(--suite embed,search --encoder "$model" --output "$output")
if "$python" -c 'import torch, sentence_transformers; assert torch.cuda.is_available()'; then
    script=benches/baselines/vectors_baseline.py
    arguments+=(--baseline "pytorch-cuda=$python $script embed {model} {n_prompt} {batch}"
                --baseline "pytorch-cuda=$python $script search {model} {batch}")
else
    echo "vectors.sh: $python has no torch with CUDA and sentence-transformers: no baselines" >&2
fi
exec cargo run --release --bin bench -- "${arguments[@]}" "${@:3}"
