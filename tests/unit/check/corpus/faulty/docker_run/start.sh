#!/usr/bin/env bash
set -eu
docker run --rm --gpus all --ipc=host \
  -e VLLM_USE_V1=1 \
  -p 8000:8000 \
  vllm/vllm-openai:v0.31.0 \
  --model Qwen/Qwen3-8B --revision b968826d9c46dd6066d109eabc6255188de91218 \
  --max-model-len 8192 \
  --max-num-seqs 64 \
  --max-model-len 16384
