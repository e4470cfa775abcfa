#!/usr/bin/env bash
# Starts one engine here, and asks it something once it is up.
set -euo pipefail

MODEL="${MODEL:-Qwen/Qwen3-8B}"
PORT=8000
LIMITS="--max-model-len 8192 --max-num-seqs 64"
extra=(--gpu-memory-utilization 0.85 --served-model-name qwen)

if [[ "${QUIET:-0}" == 1 ]]; then
  extra+=(--uvicorn-log-level warning)
fi

VLLM_NO_USAGE_STATS=1 nohup vllm serve "$MODEL" --revision b968826d9c46dd6066d109eabc6255188de91218 \
  --port "$PORT" $LIMITS "${extra[@]}" > engine.log 2>&1 &
engine=$!
trap 'kill "$engine"' EXIT

until curl --fail --silent "http://127.0.0.1:$PORT/health"; do
  sleep 2
done

bash -c "vllm --version | tee version.txt"

python3 - <<'PY'
import json, urllib.request

print(json.load(urllib.request.urlopen("http://127.0.0.1:8000/v1/models")))
# vllm serve would be started with --no-such-flag here, were this a shell
PY

cat <<NOTE
The engine runs with: vllm serve $MODEL. Stop it with kill $engine.
NOTE
