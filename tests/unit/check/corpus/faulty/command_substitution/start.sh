#!/bin/sh
PORT=8001
pid=$(vllm serve Qwen/Qwen3-8B --revision b968826d9c46dd6066d109eabc6255188de91218 --port $PORT --max-modle-len 8192 >engine.log 2>&1 & echo $!)
echo "started $pid"
