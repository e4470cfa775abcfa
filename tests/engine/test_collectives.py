"""The two collectives on two gloo processes, with sizes that differ, are equal and are zero.

Run as a script it is one rank: test_collectives.py RANK RENDEZVOUS_FILE.
"""

# ruff: noqa: PLC0415 - torch and vLLM take seconds to import and are not there everywhere

import subprocess
import sys
from pathlib import Path

WORLD = 2
SIZES = ([3, 1], [2, 2], [0, 2], [5, 0])


def test_ranks_gather_and_scatter_ragged_rows(tmp_path: Path) -> None:
    """Each rank first sees stock refuse, then checks the repaired results against what it can work out alone."""
    command = [sys.executable, __file__]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE, text=True)
        for rank in range(WORLD)
    ]
    try:
        complaints = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, complaint in zip(ranks, complaints, strict=True):
        assert rank.returncode == 0, complaint


def main(rank: int, meet: str) -> None:
    import torch.distributed as dist
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator

    from baton.engine.cpu_plugin import apply_repairs

    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=WORLD)
    communicator = CpuCommunicator(dist.group.WORLD, device_group=dist.group.WORLD, unique_name="ep:0")
    check_stock_refuses(communicator)
    apply_repairs(["collectives"])
    for sizes in SIZES:
        check_gather(communicator, rank, sizes)
        check_scatter(communicator, rank, sizes)
    check_equal_shares_need_no_sizes(communicator, rank)
    dist.destroy_process_group()


def check_stock_refuses(communicator):
    import torch

    for call in (communicator.all_gatherv, communicator.reduce_scatterv):
        try:
            call(torch.zeros(2, 2))
        except NotImplementedError:
            continue
        raise AssertionError("vLLM has the collectives now: the repair can go")


def rows_of(rank, sizes, width):
    """Return rows that every rank can make for any other."""
    import torch

    return torch.arange(sizes[rank] * width).view(sizes[rank], width).float() + 100 * rank


def check_gather(communicator, rank, sizes):
    """Three tensors of three types and widths, as dispatch sends them."""
    import torch

    kinds = ((4, torch.float32), (3, torch.int32), (2, torch.bfloat16))
    everyone = [[rows_of(each, sizes, width).to(kind) for width, kind in kinds] for each in range(WORLD)]
    gathered = communicator.all_gatherv(everyone[rank], dim=0, sizes=sizes)
    for index, got in enumerate(gathered):
        assert got.equal(torch.cat([each[index] for each in everyone])), (sizes, index)
    alone = communicator.all_gatherv(everyone[rank][0], dim=0, sizes=sizes)
    assert alone.equal(gathered[0]), sizes


def check_scatter(communicator, rank, sizes):
    import torch

    partials = [torch.randn(sum(sizes), 4, generator=torch.Generator().manual_seed(each)) for each in range(WORLD)]
    mine = communicator.reduce_scatterv(partials[rank], dim=0, sizes=sizes)
    start = sum(sizes[:rank])
    assert mine.equal(sum(partials)[start : start + sizes[rank]]), sizes


def check_equal_shares_need_no_sizes(communicator, rank):
    import torch

    assert communicator.all_gatherv(torch.full((2, 3), float(rank))).shape == (2 * WORLD, 3)
    total = communicator.reduce_scatterv(torch.full((2 * WORLD, 3), float(rank + 1)), dim=0)
    assert total.equal(torch.full((2, 3), 3.0))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
