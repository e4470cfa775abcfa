"""vLLM plugin `baton_cpu`: the repairs without which vLLM on a CPU answers wrongly, dies or stalls on baton's path.

vLLM loads it by the entry point group `vllm.general_plugins`, once in each of its processes (API server, engine core,
worker), wherever baton is installed. It knows nothing of baton. Invariants: off a CPU it touches nothing; on a vLLM or
NIXL it was not written for it raises, so that the server does not start, because a silently wrong answer is worse than
none; applying a repair twice is the same as applying it once.

    rotary        queries of three dimensions (all of MLA) were rotated by the wrong positions: every token was wrong
    collectives   data parallel experts need all_gatherv and reduce_scatterv, which the CPU communicator lacks
    expert_map    the CPU experts took global expert ids for local ones: expert parallel workers died of SIGSEGV
    nixl_poll     an idle NIXL agent spun on poll(timeout=0): a core burnt per worker
    queue_wait    engine core and worker waited for each other by sched_yield: on few cores, stalls of up to 30 s
    start_method  VLLM_WORKER_MULTIPROC_METHOD=fork was overruled: every process imported vLLM anew, 9 s each
"""

from __future__ import annotations

import functools
import importlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

from baton.base.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

KNOWN_VLLM = ("0.32.0",)
KNOWN_NIXL = ("1.5.1",)

NIXL_POLL_US = 1000
"""How long NIXL's progress thread sleeps between polls when no event wakes it, in microseconds.

NIXL rounds it up to whole milliseconds. It bounds what a wake-up lost by UCX costs (NIXL, ucx_backend.cpp, the TODO in
nixlUcxSharedThread), and 1 ms leaves an idle agent at about 0.02 core where 0 takes a whole one.
"""

QUEUE_NAP_S = 50e-6
"""How long a process sleeps between two looks at an empty queue, in seconds: the most it adds to a message's latency.

Linux adds its timer slack of as much; a CPU engine's step takes milliseconds.
"""


def register() -> None:
    """Repair this vLLM process if it runs on a CPU.

    Raises   ConfigError on a vLLM or NIXL whose faults are not known.
    Source   vLLM 0.32.0, vllm/plugins/__init__.py: what this raises ends the process, an error on import does not.
    """
    import vllm  # noqa: PLC0415 - only a vLLM process has it
    from vllm.platforms import current_platform  # noqa: PLC0415

    if not current_platform.is_cpu():
        return
    check_known("vLLM", vllm.__version__, KNOWN_VLLM)
    apply_repairs()


def check_known(what: str, found: str, known: tuple[str, ...]) -> None:
    """Refuse a release the repairs were not written for; a local part such as `+cpu` does not count."""
    if found.partition("+")[0] not in known:
        raise ConfigError(
            f"{what} {found} on a CPU is not known to baton's CPU plugin (known: {', '.join(known)}), and without its "
            f"repairs vLLM answers wrongly there. Install a known release (pip install 'baton[local]'), or switch the "
            f"plugin off by naming in VLLM_PLUGINS only the plugins to load (VLLM_PLUGINS= loads none)."
        )


def apply_repairs(names: Iterable[str] | None = None) -> None:
    """Apply the named repairs, or all of them, in the order of `REPAIRS`."""
    for name in REPAIRS if names is None else names:
        REPAIRS[name]()


# rotary ---------------------------------------------------------------------------------------------------------------


def repair_rotary() -> None:
    """Give the rotary op of the CPU the two-dimensional tensors it reads correctly.

    Source   vLLM 0.32.0, csrc/cpu/pos_encoding.cpp takes stride(-2) for the step from token to token and
             size(-1) / head_size for the number of heads: right for [T, H * D], wrong for MLA's [T, H, D]. Equal to
             forward_native to the last bit in float32, and two to four times as fast.
    """
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding  # noqa: PLC0415

    _wrap(RotaryEmbedding, "forward_cpu", _rotate_flat)


def _rotate_flat(
    stock: Callable[..., Any], self: Any, positions: Tensor, query: Tensor, key: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Rotate query and key in place, as stock promises, through [T, H * D] views or copies of them."""
    flat_query = query.reshape(positions.numel(), -1)
    flat_key = None if key is None else key.reshape(positions.numel(), -1)
    stock(self, positions, flat_query, flat_key)
    _store(flat_query, query)
    if key is not None and flat_key is not None:
        _store(flat_key, key)
    return query, key


def _store(flat: Tensor, into: Tensor) -> None:
    """Write a rotated copy back; a view already is in its place."""
    if flat.data_ptr() != into.data_ptr():
        into.copy_(flat.view(into.shape))


# collectives ----------------------------------------------------------------------------------------------------------


class Communicator(Protocol):
    """What the two collectives need of vLLM's communicator; the group is gloo's."""

    device_group: Any
    world_size: int
    rank_in_group: int


def repair_collectives() -> None:
    """Give the CPU communicator the two collectives that expert dispatch and combine are built on.

    Source   vLLM 0.32.0, AgRsAll2AllManager calls them; CpuCommunicator inherits NotImplementedError.
    """
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator  # noqa: PLC0415

    CpuCommunicator.all_gatherv = all_gatherv
    CpuCommunicator.reduce_scatterv = reduce_scatterv


def all_gatherv(self: Communicator, input_: Tensor | list[Tensor], dim: int = 0, sizes: list[int] | None = None) -> Any:
    """Return the rows of all ranks, in rank order; several tensors travel as the bytes of one message.

    Sizes    rows per rank, None where all hold as many as this one
    Returns  a tensor for a tensor, a list for a list
    """
    import torch  # noqa: PLC0415

    assert dim == 0, f"only dimension 0 can be gathered, got {dim}"
    tensors = list(input_) if isinstance(input_, list | tuple) else [input_]
    rows = tensors[0].shape[0]
    sizes = [rows] * self.world_size if sizes is None else sizes
    parts = [tensor.reshape(rows, prod(tensor.shape[1:])).view(torch.uint8) for tensor in tensors]
    sent = torch.cat(parts, dim=1).repeat(self.world_size, 1)
    got = _exchange(self, sent, [rows] * self.world_size, sizes).split([part.shape[1] for part in parts], dim=1)
    gathered = [
        columns.contiguous().view(tensor.dtype).view(sum(sizes), *tensor.shape[1:])
        for columns, tensor in zip(got, tensors, strict=True)
    ]
    return gathered if isinstance(input_, list | tuple) else gathered[0]


def reduce_scatterv(self: Communicator, input_: Tensor, dim: int = -1, sizes: list[int] | None = None) -> Tensor:
    """Return this rank's rows of the sum over ranks, added up in rank order whoever is late.

    Sizes    rows each rank keeps, None for equal shares
    """
    assert dim % input_.dim() == 0, f"only dimension 0 can be scattered, got {dim}"
    sizes = [input_.shape[0] // self.world_size] * self.world_size if sizes is None else sizes
    assert sum(sizes) == input_.shape[0], f"{sizes=} do not add up to {input_.shape[0]} rows"
    mine = sizes[self.rank_in_group]
    got = _exchange(self, input_.contiguous(), sizes, [mine] * self.world_size)
    return got.view(self.world_size, mine, *input_.shape[1:]).sum(dim=0)


def _exchange(self: Communicator, sent: Tensor, sizes_sent: list[int], sizes_got: list[int]) -> Tensor:
    """Send sizes_sent[r] rows to each rank r and return the sizes_got[r] rows of each rank r."""
    import torch.distributed as dist  # noqa: PLC0415

    got = sent.new_empty((sum(sizes_got), *sent.shape[1:]))
    dist.all_to_all_single(got, sent, sizes_got, sizes_sent, group=self.device_group)
    return got


# expert_map -----------------------------------------------------------------------------------------------------------


def repair_expert_map() -> None:
    """Let the unquantized CPU experts compute their own share of the experts only.

    Source   vLLM 0.32.0, CPUUnquantizedExperts.apply receives expert_map and drops it: the kernel then indexes the
             local weights by global ids. Upstream computes the same sum on a GPU by skipping ids that map to -1.
    """
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts  # noqa: PLC0415

    _wrap(CPUUnquantizedExperts, "apply", _apply_local_experts)


def _apply_local_experts(
    stock: Callable[..., None],
    self: Any,
    output: Tensor,
    hidden_states: Tensor,
    w1: Tensor,
    w2: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
    activation: Any,
    global_num_experts: int,
    expert_map: Tensor | None,
    *rest: Any,
    **named: Any,
) -> None:
    """Run stock on the (token, expert) pairs of this rank, one row a pair, and add the rows up by token in float32.

    Shapes   output, hidden_states [T, D]; topk_weights, topk_ids [T, K]; expert_map [E], local id or -1
    """
    if expert_map is None:
        stock(self, output, hidden_states, w1, w2, topk_weights, topk_ids, activation, global_num_experts, None,
              *rest, **named)  # fmt: skip
        return
    local_ids = expert_map[topk_ids.long()]
    tokens, picks = (local_ids >= 0).nonzero(as_tuple=True)
    total = output.new_zeros(output.shape).float()
    if tokens.numel():
        pairs = output.new_empty(tokens.numel(), output.shape[1])
        weights = topk_weights[tokens, picks].unsqueeze(1)
        ids = local_ids[tokens, picks].unsqueeze(1).to(topk_ids.dtype)
        stock(self, pairs, hidden_states[tokens], w1, w2, weights, ids, activation, global_num_experts, None,
              *rest, **named)  # fmt: skip
        total.index_add_(0, tokens, pairs.float())
    output.copy_(total)


# nixl_poll ------------------------------------------------------------------------------------------------------------


def repair_nixl_poll() -> None:
    """Let NIXL's progress thread sleep until it is woken, or for `NIXL_POLL_US`.

    Raises   ConfigError on a NIXL that is not known.
    Source   NIXL 1.5.1: _api.py sets pthrDelay = 0 on every agent, and ucx_backend.cpp hands it to poll() as the
             timeout. Moving the KV of 58 tokens between two engines on two busy cores took 1.1 s, and 7 ms after.
    """
    from vllm.distributed import nixl_utils  # noqa: PLC0415

    if nixl_utils.NixlWrapper is None:  # NIXL is not installed: vLLM itself says so when a connector asks for it
        return
    bindings = importlib.import_module("nixl._api").nixlBind
    if bindings.nixlAgentConfig.__module__ == __name__:
        return
    check_known("NIXL", _nixl_version(), KNOWN_NIXL)
    bindings.nixlAgentConfig = with_poll_delay(bindings.nixlAgentConfig)


def with_poll_delay(config: type) -> type:
    """Return NIXL's agent configuration with a pthrDelay that cannot be set below `NIXL_POLL_US`."""
    stock = vars(config)["pthrDelay"]

    def set_delay(self: object, delay_us: int) -> None:
        stock.__set__(self, max(delay_us, NIXL_POLL_US))

    return type(config.__name__, (config,), {"pthrDelay": property(stock.__get__, set_delay)})


def _nixl_version() -> str:
    """Return the installed release, by whichever of its distributions is there."""
    for name in ("nixl", "nixl-cu12", "nixl-cu13"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of no distribution"


# queue_wait -----------------------------------------------------------------------------------------------------------


def repair_queue_wait() -> None:
    """Let the readers and writers of vLLM's shared memory queues sleep between looks instead of yielding the core.

    Source   vLLM 0.32.0, shm_broadcast.py spins on os.sched_yield() for a second after each message. Under Linux's
             EEVDF scheduler every yield moves the thread's deadline one slice on, so that one which yielded a million
             times does not run again for seconds while any other can. Seen on Linux 6.18: during one hand-off a decode
             worker ran for 0.4 s and waited, runnable, for 25.4 s; 15 of 15 hand-offs took below 0.8 s afterwards.
    """
    from vllm.distributed.device_communicators import shm_broadcast  # noqa: PLC0415

    shm_broadcast.sched_yield = nap


def nap() -> None:
    """Sleep for `QUEUE_NAP_S`."""
    time.sleep(QUEUE_NAP_S)


# start_method ---------------------------------------------------------------------------------------------------------

START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


def repair_start_method() -> None:
    """Let an asked-for fork stand; who asks for none gets spawn as before.

    Fork is safe with OMP_NUM_THREADS=1 only: a child cannot use the thread pool that its parent's OpenMP made.
    Source   vLLM 0.32.0, CpuPlatform.check_and_update_config sets spawn whatever the environment says. Two engines on
             two cores: both up after 20 s with fork, after 33 s with spawn.
    """
    from vllm.platforms.cpu import CpuPlatform  # noqa: PLC0415

    stock = CpuPlatform.check_and_update_config
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def update_config(vllm_config: Any) -> None:
        asked = os.environ.get(START_METHOD)
        stock(vllm_config)
        if asked == "fork" and os.environ.get("OMP_NUM_THREADS") == "1":
            os.environ[START_METHOD] = asked

    CpuPlatform.check_and_update_config = staticmethod(update_config)


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Replace a method by wrapper(stock, self, ...), once; the stock one stays reachable as __wrapped__."""
    stock = getattr(owner, name)
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def repaired(*args: Any, **named: Any) -> Any:
        return wrapper(stock, *args, **named)

    setattr(owner, name, repaired)


REPAIRS: Mapping[str, Callable[[], None]] = {
    "rotary": repair_rotary,
    "collectives": repair_collectives,
    "expert_map": repair_expert_map,
    "nixl_poll": repair_nixl_poll,
    "queue_wait": repair_queue_wait,
    "start_method": repair_start_method,
}
