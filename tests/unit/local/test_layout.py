"""A deployment laid out on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.local.cores import thread_env
from baton.local.gpus import Gpu
from baton.local.layout import Layout, lay_out
from baton.local.ports import Ports
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe, Role
from baton.recipe.workers import dump_workers, load_workers


def deployment(tmp_path: Path, pool: str = "{}", gateway: str = "{port: 8000}") -> Deployment:
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    text = f"""
        baton: 1
        name: t
        model: {{name: tiny, aliases: [big], path: model, dtype: float32, max_model_len: 64}}
        engine: {{version: 0.32.0}}
        hardware: {{accelerator: cpu}}
        kv_transfer: {{buffer_device: cpu}}
        roles: {{prefill: {pool}, decode: {pool}}}
        gateway: {gateway}
    """
    return resolve(parse(text, Recipe, source="t.yaml"), tmp_path)


H200S = tuple(Gpu(str(number), f"GPU-{number}", "NVIDIA H200", 143771 << 20) for number in (2, 3, 5))


def on_gpus(tmp_path: Path, pool: str = "{gpus_per_node: 1}", model: str = "path: model") -> Deployment:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    text = f"""
        baton: 1
        name: t
        model: {{name: tiny, {model}, dtype: bfloat16, max_model_len: 64}}
        engine: {{version: 0.32.0}}
        hardware: {{accelerator: h200}}
        kv_transfer: {{buffer_device: cuda}}
        roles: {{prefill: {pool}, decode: {{gpus_per_node: 1}}}}
    """
    return resolve(parse(text, Recipe, source="t.yaml"), tmp_path)


def laid_out(given: Deployment, cores: int = 2, gpus: tuple[Gpu, ...] = ()) -> Layout:
    return lay_out(
        given,
        ports=Ports(lambda port: True, first=100),
        cores=range(cores),
        gpus=gpus,
        hub=Path("/hub"),
        workers_path=Path("/run/w.yaml"),
        python="/py",
        vllm=("/vllm",),
    )


def test_every_rank_has_its_own_side_channel_port(tmp_path: Path) -> None:
    """HTTP ports and side-channel ranges never overlap; the workers file says the same as the commands."""
    layout = laid_out(deployment(tmp_path, "{dp_size: 2, expert_parallel: true}"))
    assert [(w.name, w.role, w.url, w.dp_ranks, w.nixl_port) for w in layout.workers.workers] == [
        ("prefill-0", Role.PREFILL, "http://127.0.0.1:100", (0, 1), 101),
        ("decode-0", Role.DECODE, "http://127.0.0.1:103", (0, 1), 104),
    ]
    for plan, worker in zip(layout.children[:2], layout.workers.workers, strict=True):
        assert plan.command.argv[:2] == ("/vllm", "serve")
        assert plan.command.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == str(worker.nixl_port)
        assert (plan.name, plan.role, plan.url) == (worker.name, worker.role, worker.url)
    assert (layout.workers.model, layout.workers.aliases) == ("tiny", ("big",))
    assert layout.workers.checkpoint == tmp_path / "model"
    path = tmp_path / "w.yaml"
    path.write_text(dump_workers(layout.workers))
    assert load_workers(path) == layout.workers


def test_the_gateway_is_the_last_child(tmp_path: Path) -> None:
    """It gets the recipe's address and limits; its own URL is one that this machine can reach."""
    layout = laid_out(deployment(tmp_path, gateway="{host: 0.0.0.0, port: 9000, request_timeout_s: 5}"))
    gateway = layout.children[-1]
    assert gateway.role is None
    assert gateway.command.argv == (
        "/py", "-m", "baton", "gateway", "--workers", "/run/w.yaml", "--host", "0.0.0.0", "--port", "9000",
        "--request-timeout-s", "5.0", "--max-body-bytes", str(32 << 20),
    )  # fmt: skip
    assert gateway.url == layout.gateway_url == "http://127.0.0.1:9000"


def test_a_recipes_environment_wins_over_the_machines(tmp_path: Path) -> None:
    """Who binds threads by hand gets that binding."""
    engines = laid_out(deployment(tmp_path, '{env: {OMP_NUM_THREADS: "7"}}')).children[:2]
    assert [plan.command.env["OMP_NUM_THREADS"] for plan in engines] == ["7", "7"]
    assert {plan.command.env["VLLM_CPU_OMP_THREADS_BIND"] for plan in engines} == {"nobind"}


@pytest.mark.parametrize(("cores", "pool", "threads"), [(1, "{}", 1), (2, "{}", 1), (4, "{}", 2), (16, "{}", 7)])
def test_threads_are_shared_out(tmp_path: Path, cores: int, pool: str, threads: int) -> None:
    """Every rank has a thread, and where there is room NIXL has a core."""
    env = thread_env(range(cores), deployment(tmp_path, pool).engines)
    assert {name: each["OMP_NUM_THREADS"] for name, each in env.items()} == {
        "prefill-0": str(threads),
        "decode-0": str(threads),
    }


def test_one_thread_forks(tmp_path: Path) -> None:
    """A fork starts in half the time, but would lose OpenMP's threads if there were any."""
    engines = deployment(tmp_path).engines
    assert thread_env(range(2), engines)["decode-0"]["VLLM_WORKER_MULTIPROC_METHOD"] == "fork"
    assert "VLLM_WORKER_MULTIPROC_METHOD" not in thread_env(range(8), engines)["decode-0"]


def test_ranks_of_one_engine_share_its_cores(tmp_path: Path) -> None:
    """Four ranks on eight cores have two threads each, on two cores one."""
    engines = deployment(tmp_path, "{dp_size: 2}").engines
    assert thread_env(range(8), engines)["prefill-0"]["OMP_NUM_THREADS"] == "2"
    assert thread_env(range(2), engines)["prefill-0"]["OMP_NUM_THREADS"] == "1"


def test_engines_on_gpus_get_gpus_and_no_threads(tmp_path: Path) -> None:
    """Those of the machine, in order; how threads are bound is a matter of CPUs."""
    engines = laid_out(on_gpus(tmp_path, "{gpus_per_node: 2, tp_size: 2}"), gpus=H200S).children[:2]
    assert [plan.command.env["CUDA_VISIBLE_DEVICES"] for plan in engines] == ["2,3", "5"]
    assert {plan.command.env["CUDA_DEVICE_ORDER"] for plan in engines} == {"PCI_BUS_ID"}
    assert not any("OMP_NUM_THREADS" in plan.command.env for plan in engines)


def test_a_checkpoint_that_is_not_here_comes_from_its_repository(tmp_path: Path) -> None:
    """At the pinned revision, by the network; the proof finds its config where the hub's library puts it."""
    given = on_gpus(tmp_path, model="path: model, repo: org/m, revision: c0ffee")
    assert laid_out(given, gpus=H200S).workers.checkpoint == tmp_path / "model"
    (tmp_path / "model" / "config.json").unlink()
    layout = laid_out(given, gpus=H200S)
    for plan in layout.children[:2]:
        assert plan.command.argv[1:5] == ("serve", "org/m", "--revision", "c0ffee")
        assert "HF_HUB_OFFLINE" not in plan.command.env
    assert layout.workers.checkpoint == Path("/hub/models--org--m/snapshots/c0ffee")


def test_what_this_machine_cannot_run_is_refused(tmp_path: Path) -> None:
    """Before anything is started, with what to do."""
    with pytest.raises(
        ConfigError, match=r"t needs 2 GPUs \(h200\), and this machine has none.*recipes/tiny-local.yaml"
    ):
        laid_out(on_gpus(tmp_path))
    given = deployment(tmp_path)
    with pytest.raises(ConfigError, match=r"roles\.prefill\.load_balancing: external"):
        laid_out(deployment(tmp_path, "{dp_size: 2, load_balancing: external}"))
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"model\.path: .*/model holds no config\.json.*model\.repo"):
        laid_out(given)
