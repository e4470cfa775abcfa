#!/bin/bash
image=vllm/vllm-openai:v0.32.0
podman run --device nvidia.com/gpu=all "$image" --model Qwen/Qwen3-8B --revision b968826d9c46dd6066d109eabc6255188de91218 --max-model-len --port 8000
podman run --device nvidia.com/gpu=all "$image" --model Qwen/Qwen3-8B --revision b968826d9c46dd6066d109eabc6255188de91218 \
  --port 8001 \
  --max-num-seqs many
