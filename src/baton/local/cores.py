"""Threads of each engine on this machine's cores: a pure function of the cores and the engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from baton.recipe.deployment import EngineSpec


def thread_env(cores: Sequence[int], engines: Sequence[EngineSpec]) -> Mapping[str, Mapping[str, str]]:
    """Environment of each engine, by its name, for the core numbers this process may use.

    Every rank gets an equal share of OpenMP threads, at least one, and no thread is bound to a core: NIXL's progress
    thread and the API server must run beside the computation, and where there are fewer cores than threads, a bound one
    is slower or as slow (32 tokens with their transfer on two cores: 0.50-0.80 s unbound, 0.8-1.9 s on a core each).

    With one thread engines fork their processes instead of starting each afresh, which saves two imports of vLLM one
    after the other (both engines up in 20 s instead of 34 s on two cores). OpenMP's threads would not survive a fork.
    """
    num_ranks = sum(engine.dp_size_local * engine.tp_size for engine in engines)
    num_threads = max(1, len(cores) // max(1, num_ranks))
    if num_threads > 2:
        num_threads -= 1  # leave one core of each rank's share to NIXL and the API server
    env = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(num_threads)}
    if num_threads == 1:
        env["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    return {engine.name: env for engine in engines}
