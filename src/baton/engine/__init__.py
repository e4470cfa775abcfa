"""Floor 3: vLLM from outside: command line, HTTP, KV hand-off parameters, metrics."""
