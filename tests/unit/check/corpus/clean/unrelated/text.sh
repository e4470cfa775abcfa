#!/bin/sh
# Says the word vllm, and starts nothing.
echo 'vllm serve --help lists the flags' >&2
grep -rn 'vllm serve' docs || true
