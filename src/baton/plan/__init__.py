"""Which layout serves a workload best: feasibility first, then predicted rates, latencies and what limits them."""
