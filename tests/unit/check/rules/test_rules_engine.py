"""Rules on how an engine is spread, batched and fits its GPU: releases, boundaries, and what cannot be known."""

from __future__ import annotations

import pytest

from baton.check.bundle import of_sources
from baton.check.finding import Finding, Harm
from baton.check.rule import rule
from baton.check.run import check
from baton.check.text import Source

WIDE = "--data-parallel-size 16 --enable-expert-parallel"
R1 = f"--model deepseek-ai/DeepSeek-R1 {WIDE}"
FP4 = f"--model nvidia/DeepSeek-R1-FP4 {WIDE}"
LL = "--all2all-backend deepep_low_latency"
HT = "--all2all-backend deepep_high_throughput"


def of_text(code: str, text: str, gpu: str | None = None) -> list[Finding]:
    suffix = "sh" if text.startswith("#!") else "yaml"
    report = check(of_sources([Source(f"f.{suffix}", text)], accelerator=gpu))
    assert not [f.message for f in report.findings if f.code == "internal-error"]
    return [f for f in report.findings if f.code == code]


def of_flags(
    code: str, version: str | None, flags: str, env: dict[str, str] | None = None, gpu: str | None = None
) -> list[Finding]:
    """Findings of one rule for `docker run` of a release; no release where version is None."""
    image = f"vllm/vllm-openai:v{version}" if version else "vllm/vllm-openai:latest"
    variables = "".join(f"-e {name}={value} " for name, value in (env or {}).items())
    return of_text(code, f"#!/bin/bash\ndocker run {variables}{image} {flags}\n", gpu)


def pod(flags: str, gpus: int, kind: str = "nvidia.com/gpu") -> str:
    args = "".join(f"        - '{word}'\n" for word in flags.split())
    return (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n    - name: e\n"
        f"      image: vllm/vllm-openai:v0.32.0\n      args:\n{args}"
        f"      resources: {{limits: {{{kind}: {gpus}}}}}\n"
    )


def graph(flags: str, gpus: int, nodes: int | None) -> str:
    multinode = f"      multinode: {{nodeCount: {nodes}}}\n" if nodes else ""
    words = ", ".join(f'"{word}"' for word in ["-m", "dynamo.vllm", *flags.split()])
    return (
        "apiVersion: nvidia.com/v1alpha1\nkind: DynamoGraphDeployment\nmetadata: {name: g}\nspec:\n  services:\n"
        f"    decode:\n      componentType: worker\n{multinode}      resources: {{limits: {{gpu: '{gpus}'}}}}\n"
        "      extraPodSpec:\n        mainContainer:\n          image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1\n"
        f"          command: [python3]\n          args: [{words}]\n"
    )


def script(flags: str, command: str = "vllm serve m") -> str:
    return pod("x", 8).replace(
        "      args:\n        - 'x'\n", f"      command: [sh, -c]\n      args: ['{command} {flags}']\n"
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (graph(f"--model m {WIDE} --data-parallel-hybrid-lb", 8, 2), 0),  # the operator adds the local size
        (graph(f"--model m {WIDE} --data-parallel-hybrid-lb", 8, None), 1),
        (pod(f"--model m {WIDE} --data-parallel-hybrid-lb", 8), 1),
        (pod(f"--model m {WIDE} --data-parallel-hybrid-lb --data-parallel-size-local 8", 8), 0),
        (pod(f"--model m {WIDE} --no-data-parallel-hybrid-lb", 8), 0),
        (pod(f"--model m {WIDE} --data-parallel-hybrid-lb --data-parallel-rank 1", 8), 0),
        (pod(f"--model m {WIDE} --data-parallel-hybrid-lb --nnodes 2", 8), 0),
        (script(f"{WIDE} --data-parallel-hybrid-lb $MORE"), 0),  # anything may stand in $MORE
        (script(f"{WIDE} --data-parallel-hybrid-lb --data-parallel-address $LEADER"), 1),  # an address is one word
    ],
)
def test_hybrid_lb_needs_a_local_size(text: str, count: int) -> None:
    assert len(of_text("hybrid-lb-local-size", text)) == count


@pytest.mark.parametrize(
    ("version", "flags", "said"),
    [
        ("0.32.0", "--data-parallel-size 8 --data-parallel-rank 8", "not in the range [0, 8)"),
        ("0.32.0", "--data-parallel-size 8 --data-parallel-rank 7", None),
        ("0.32.0", "--data-parallel-size 8 --data-parallel-size-local 9", "is more than"),
        ("0.32.0", "--data-parallel-size 8 --data-parallel-size-local 8", None),
        ("0.32.0", "--data-parallel-size 8 --data-parallel-start-rank 4", "is ignored"),
        (
            "0.32.0",
            "--data-parallel-size 8 --data-parallel-start-rank 8 --data-parallel-size-local 4",
            "not in the range",
        ),
        ("0.32.0", "--data-parallel-size 8 --data-parallel-external-lb", "without --data-parallel-rank"),
        ("0.32.0", "--data-parallel-external-lb --data-parallel-rank 0", "with --data-parallel-size 1"),
        ("0.14.1", "--data-parallel-size 8 --data-parallel-hybrid-lb --data-parallel-rank 1", None),
        ("0.17.1", "--data-parallel-size 8 --data-parallel-hybrid-lb --data-parallel-rank 1", "means hybrid"),
        (None, "--data-parallel-size 8 --data-parallel-hybrid-lb --data-parallel-rank 1", None),
        (
            "0.32.0",
            "--data-parallel-size 8 --data-parallel-size-local 4 --data-parallel-hybrid-lb --headless",
            "needs an",
        ),
        ("0.32.0", "--data-parallel-size 8 --data-parallel-size-local 0 --headless", "nothing to run"),
    ],
)
def test_data_parallel_flags(version: str | None, flags: str, said: str | None) -> None:
    found = of_flags("data-parallel-flags", version, f"--model m {flags}")
    assert [said in f.message for f in found] == ([True] if said else [])  # type: ignore[operator]


@pytest.mark.parametrize(("nodes", "count"), [(2, 1), (4, 0), (1, 0)])
def test_ranks_that_start_nowhere(nodes: int, count: int) -> None:
    flags = "--data-parallel-size 16 --data-parallel-size-local 4 --data-parallel-address $HEAD"
    text = f"#!/bin/bash\n#SBATCH --nodes={nodes}\nsrun bash -c 'vllm serve m {flags}'\n"
    found = of_text("data-parallel-flags", text)
    assert ["8 ranks start nowhere" in f.message for f in found] == [True] * count
    of_head = f"srun --nodes={nodes} bash -c 'vllm serve m {flags.replace('local 4', 'local 8')}'\n"
    assert not of_text("data-parallel-flags", text + of_head)  # not every node starts as many


@pytest.mark.parametrize(
    ("flags", "alone", "unused"),
    [
        ("--enable-expert-parallel", 1, 0),
        ("--enable-expert-parallel --tensor-parallel-size 2", 0, 0),
        (f"--enable-expert-parallel {LL}", 1, 0),  # one fault, said once
        (f"--enable-expert-parallel --tensor-parallel-size 2 {LL}", 0, 1),
        (f"--data-parallel-size 2 {LL}", 0, 1),
        (f"--data-parallel-size 2 --enable-expert-parallel {LL}", 0, 0),
        ("--data-parallel-size 2 --all2all-backend allgather_reducescatter", 0, 0),  # the default
        (f"$MORE {LL}", 0, 0),
    ],
)
def test_expert_parallelism_that_does_nothing(flags: str, alone: int, unused: int) -> None:
    assert len(of_flags("expert-parallel-alone", "0.32.0", f"--model m {flags}")) == alone
    assert len(of_flags("all2all-unused", "0.32.0", f"--model m {flags}")) == unused


@pytest.mark.parametrize(
    ("version", "flags", "env", "count"),
    [
        ("0.32.0", f"--enable-dbo {LL}", {}, 0),
        ("0.32.0", f"--enable-dbo {HT}", {}, 0),
        ("0.32.0", "--enable-dbo", {}, 1),  # by default allgather_reducescatter
        ("0.22.1", "--enable-dbo --all2all-backend nixl_ep", {}, 1),
        ("0.23.0", "--enable-dbo --all2all-backend nixl_ep", {}, 0),  # not read, so not claimed
        ("0.24.0", "--enable-dbo --all2all-backend nixl_ep", {}, 0),
        ("0.14.1", "--enable-dbo --all2all-backend flashinfer_all2allv", {}, 1),
        ("0.32.0", "--ubatch-size 2", {}, 1),
        ("0.32.0", "--ubatch-size 1", {}, 0),
        ("0.11.0", "--enable-dbo", {"VLLM_ALL2ALL_BACKEND": "pplx"}, 1),
        ("0.11.0", "--enable-dbo", {"VLLM_ALL2ALL_BACKEND": "deepep_low_latency"}, 0),
        ("0.32.0", "--enable-dbo $MORE", {}, 0),
    ],
)
def test_dual_batch_overlap_needs_deepep(version: str, flags: str, env: dict[str, str], count: int) -> None:
    assert len(of_flags("dbo-backend", version, f"--model m {WIDE} {flags}", env)) == count


def test_dual_batch_overlap_that_never_happens() -> None:
    assert of_flags("dbo-unused", "0.32.0", f"--model m --enable-dbo {LL}")
    assert of_flags("dbo-unused", "0.32.0", f"--model m {WIDE} {LL} --dbo-prefill-token-threshold 512")
    assert not of_flags(
        "dbo-unused", "0.32.0", f"--model m {WIDE} {LL} --ubatch-size 2 --dbo-prefill-token-threshold 512"
    )


@pytest.mark.parametrize(
    ("version", "size", "more", "gpu", "said", "harm"),
    [
        ("0.32.0", 1, "", None, "not a multiple of 16", Harm.NOT_STARTING),
        ("0.32.0", 16, "", None, None, None),
        ("0.32.0", 16, "", "gb200", "rules out", Harm.WASTED),
        ("0.32.0", 32, "", "gb200", None, None),
        ("0.32.0", 16, "", "h200", None, None),
        ("0.32.0", 32, "--kv-cache-dtype fp8", "h200", "takes 64", Harm.WASTED),
        ("0.32.0", 64, "--attention-backend CUTLASS_MLA", "gb200", "128, which CUTLASS_MLA", Harm.NOT_STARTING),
        ("0.18.1", 1, "", "gb200", None, None),  # not read, so not claimed
        ("0.17.1", 1, "", "gb200", "replaced by 64, which FLASHINFER_MLA", Harm.WASTED),
        ("0.14.1", 64, "", "gb200", "replaced by 128", Harm.WASTED),
        ("0.14.1", 128, "", "gb200", None, None),
        ("0.14.1", 16, "", "h200", "replaced by 64", Harm.WASTED),
        ("0.14.1", 1, "", None, None, None),
        ("0.14.1", 1, "--attention-backend TRITON_MLA", "h200", None, None),
        (None, 1, "", "h200", None, None),
    ],
)
def test_block_size(
    version: str | None, size: int, more: str, gpu: str | None, said: str | None, harm: Harm | None
) -> None:
    found = of_flags("block-size", version, f"{R1} --block-size {size} {more}", gpu=gpu)
    assert [(str(said) in f.message, f.harm) for f in found] == ([(True, harm)] if said else [])


def test_block_size_of_other_models_is_left_alone() -> None:
    assert not of_flags("block-size", "0.32.0", "--model Qwen/Qwen3-8B --block-size 8")
    assert not of_flags("block-size", "0.32.0", "--model deepseek-ai/DeepSeek-V3.2 --block-size 1")


@pytest.mark.parametrize(
    ("version", "backend", "dtype", "gpu", "count"),
    [
        ("0.32.0", "FLASH_ATTN_MLA", "fp8", None, 1),
        ("0.32.0", "FLASH_ATTN_MLA", "auto", None, 0),
        ("0.32.0", "FLASHMLA", "fp8", "h200", 0),
        ("0.17.1", "TRITON_MLA", "fp8", None, 1),
        ("0.19.1", "TRITON_MLA", "fp8", None, 0),
        ("0.32.0", "FLASHINFER_MLA", "fp8", "h200", 1),
        ("0.32.0", "FLASHINFER_MLA", "fp8", "gb200", 0),
        ("0.32.0", "FLASHMLA", "auto", "b200", 1),
        ("0.11.0", "FLASHINFER_MLA", "auto", "h200", 0),
    ],
)
def test_attention_backends(version: str, backend: str, dtype: str, gpu: str | None, count: int) -> None:
    flags = f"{R1} --kv-cache-dtype {dtype}"
    by_flag = f"{flags} --attention-backend {backend}"
    if version == "0.11.0":
        assert len(of_flags("kv-dtype-backend", version, flags, {"VLLM_ATTENTION_BACKEND": backend}, gpu)) == count
    else:
        assert len(of_flags("kv-dtype-backend", version, by_flag, gpu=gpu)) == count
    if version == "0.32.0":
        dotted = f"{flags} --attention-config.backend {backend}"
        assert len(of_flags("kv-dtype-backend", version, dotted, gpu=gpu)) == count


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (f'{R1} --enable-eplb --eplb-config \'{{"num_redundant_experts":"32"}}\'', None),
        (
            f"{R1} --enable-eplb --eplb-config '{{\"num_redundant_experts\":24}}'",
            "256 + 24 experts do not divide by 16",
        ),
        (f"{R1} --enable-eplb --eplb-config.num_redundant_experts 24", "256 + 24"),
        (f"{R1} --enable-eplb --eplb-config.num_redundant_experts 1024", "more than 1023"),
        (f"{R1} --enable-eplb", None),
        (f"{R1} --eplb-config.num_redundant_experts 32", "EPLB is off"),
        ("--model m --data-parallel-size 8 --enable-eplb", "without --enable-expert-parallel"),
        ("--model m --enable-expert-parallel --enable-eplb", "with one rank"),
        (f"--model other {WIDE} --enable-eplb --eplb-config.num_redundant_experts 24", None),
    ],
)
def test_eplb(flags: str, said: str | None) -> None:
    found = of_flags("eplb-experts", "0.32.0", flags)
    assert [str(said) in f.message for f in found] == ([True] if said else [])


def test_the_uneven_experts_are_mended_by_the_number_it_names() -> None:
    found = of_flags("eplb-experts", "0.32.0", f"{R1} --enable-eplb --eplb-config.num_redundant_experts 24")
    assert found[0].fix is not None
    assert found[0].fix.words == "give num_redundant_experts 32"


LOOP = "for i in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$i vllm serve m --data-parallel-size 8 --data-parallel-rank $i & done"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (pod("--model m --tensor-parallel-size 8", 8), None),
        (pod("--model m --tensor-parallel-size 4", 8), "4 ranks on 8 GPUs: 4 of them idle"),
        (pod("--model m", 8), "1 rank on 8 GPUs: 7 of them idle"),
        (pod("--model m --data-parallel-size 16", 8), "16 ranks on 8 GPUs: the engine does not start"),
        (pod("--model m --data-parallel-size 16 --data-parallel-size-local 8", 8), None),
        (pod("--model m --data-parallel-size 8 --data-parallel-size-local 4 --tensor-parallel-size 2", 8), None),
        (
            pod("--model m --data-parallel-size 16 --data-parallel-size-local 8 --tensor-parallel-size 2", 8),
            "16 ranks on 8",
        ),
        (pod("--model m --data-parallel-size 8 --data-parallel-rank 1 --tensor-parallel-size 4", 4), None),
        (pod("--model m --tensor-parallel-size 8 --pipeline-parallel-size 2", 8), "16 ranks on 8"),
        (pod("--model m --tensor-parallel-size 16 --distributed-executor-backend ray", 8), None),
        (pod("--model m --tensor-parallel-size 16 --nnodes 2", 8).replace("kind: Pod", "kind: Unknown"), None),
        (graph(f"--model m {WIDE}", 8, 2), None),
        (graph(f"--model m {WIDE}", 4, 2), "16 ranks on 8 GPUs"),
        (graph(f"--model m {WIDE}", 8, 4), "16 ranks on 32 GPUs: 16 of them idle"),
        (graph("--model m --tensor-parallel-size 16", 8, 2), None),
        (script("--tensor-parallel-size $TP"), None),
        (script("", LOOP), None),
        (script("--port 2", "vllm serve m -tp 4 --port 1 &\n\n        vllm serve m -tp 4"), None),
        (script("--port 2", "vllm serve m -tp 8 --port 1 &\n\n        vllm serve m -tp 8"), "16 ranks on 8"),
        (script("-tp 8; fi", "if x; then vllm serve m -tp 8; else vllm serve m"), None),
    ],
)
def test_gpu_count(text: str, said: str | None) -> None:
    found = of_text("gpu-count", text)
    assert [str(said) in f.message for f in found] == ([True] if said else []), [f.message for f in found]


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ("--data-parallel-size-local 8", 1),
        ("--data-parallel-size-local 8 --data-parallel-address 127.0.0.1", 1),
        ("--data-parallel-size-local 8 --data-parallel-address $HEAD", 0),
        ("--data-parallel-size-local 16", 0),
        ("--data-parallel-size-local 8 --data-parallel-backend ray", 0),
        ("--data-parallel-size-local 8 --master-addr $HEAD", 0),
    ],
)
def test_data_parallel_address(flags: str, count: int) -> None:
    text = f"#!/bin/bash\n#SBATCH --nodes=2\nsrun bash -c 'vllm serve m --data-parallel-size 16 {flags}'\n"
    assert len(of_text("data-parallel-address", text)) == count
    assert not of_text("data-parallel-address", text.replace("--nodes=2", "--nodes=1"))


@pytest.mark.parametrize(
    ("version", "flags", "said"),
    [
        ("0.32.0", "--max-num-seqs 512 --max-num-batched-tokens 511", "is less than --max-num-seqs 512"),
        ("0.32.0", "--max-num-seqs 512 --max-num-batched-tokens 512", None),
        ("0.32.0", f"{WIDE} {LL} --max-num-seqs 257", "with the default of 256 batched tokens"),
        ("0.20.2", f"{WIDE} {LL} --max-num-seqs 257", "with the default of 256 batched tokens"),
        ("0.32.0", f"{WIDE} {LL} --max-num-seqs 256", None),
        ("0.19.1", f"{WIDE} {LL} --max-num-seqs 512", None),
        (None, f"{WIDE} {LL} --max-num-seqs 512", None),
        ("0.32.0", f"{WIDE} {HT} --max-num-seqs 512", None),
        ("0.32.0", f"--data-parallel-size 16 {LL} --max-num-seqs 512", None),
        ("0.32.0", f"{WIDE} {LL} --max-num-seqs 512 $MORE", None),
        (
            "0.32.0",
            "--no-enable-chunked-prefill --max-num-batched-tokens 1024 --max-model-len 2k",
            "than --max-model-len 2000",
        ),
        ("0.32.0", "--no-enable-chunked-prefill --max-num-batched-tokens 2k --max-model-len 2k", None),
        ("0.11.0", "--no-enable-chunked-prefill --max-num-batched-tokens 1024 --max-model-len 2048", None),
    ],
)
def test_batched_tokens(version: str | None, flags: str, said: str | None) -> None:
    found = of_flags("batched-tokens", version, f"--model m {flags}")
    assert [str(said) in f.message for f in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("version", "flags", "env", "said"),
    [
        (
            "0.14.1",
            f"{LL} --max-num-seqs 512",
            {"VLLM_MOE_DP_CHUNK_SIZE": "384"},
            "384 is less than --max-num-seqs 512",
        ),
        ("0.14.1", f"{LL} --max-num-seqs 512", {}, "VLLM_MOE_DP_CHUNK_SIZE 256"),
        ("0.14.1", f"{LL} --max-num-seqs 512", {"VLLM_MOE_DP_CHUNK_SIZE": "512"}, None),
        ("0.14.1", f"{HT} --max-num-seqs 512", {}, None),
        ("0.32.0", f"{LL} --max-num-batched-tokens 1024", {}, None),
        ("0.32.0", f"{LL} --max-num-batched-tokens 2048", {}, "buffer of 30.5 GB"),
        ("0.14.1", f"{LL} --max-num-batched-tokens 8192", {"VLLM_MOE_DP_CHUNK_SIZE": "1024"}, None),
        (None, f"{LL} --max-num-batched-tokens 8192", {}, None),
    ],
)
def test_dispatch_tokens(version: str | None, flags: str, env: dict[str, str], said: str | None) -> None:
    found = of_flags("dispatch-tokens", version, f"{R1} {flags}", env)
    assert [str(said) in f.message for f in found] == ([True] if said else [])


def test_a_buffer_larger_than_the_gpu_does_not_start() -> None:
    flags = f"{R1} {LL} --max-num-batched-tokens 8192"
    assert [f.harm for f in of_flags("dispatch-tokens", "0.32.0", flags, gpu="h200")] == [Harm.WASTED]
    assert [f.harm for f in of_flags("dispatch-tokens", "0.32.0", flags, gpu="h100-80gb")] == [Harm.NOT_STARTING]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--enforce-eager --cudagraph-capture-sizes 1 2", "--cudagraph-capture-sizes"),
        ('--enforce-eager --compilation-config \'{"cudagraph_mode":"NONE"}\'', None),
        ("--enforce-eager --compilation-config.cudagraph_mode FULL", "cudagraph_mode"),
        ("--enforce-eager --compilation-config.pass_config.fuse_norm_quant true", "pass_config"),
        ("--enforce-eager", None),
        (f"{WIDE} {HT} --max-cudagraph-capture-size 512", "deepep_high_throughput switches CUDA graphs off"),
        (f"{HT} --max-cudagraph-capture-size 512", None),
        (f"{WIDE} {LL} --max-cudagraph-capture-size 512", None),
    ],
)
def test_eager_with_graphs(flags: str, said: str | None) -> None:
    found = of_flags("eager-with-graphs", "0.32.0", f"--model m {flags}")
    assert [str(said) in f.message for f in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("version", "flags", "gpu", "said"),
    [
        ("0.32.0", "--cudagraph-capture-sizes 128 512 --max-num-seqs 512", None, None),
        ("0.32.0", "--cudagraph-capture-sizes 128 512 --max-num-seqs 513", None, "largest CUDA graph is for 512"),
        ("0.32.0", "--cudagraph-capture-sizes 128 512 --max-cudagraph-capture-size 256", None, "the engine exits"),
        ("0.32.0", "--cudagraph-capture-sizes 128 512 --max-cudagraph-capture-size 512", None, None),
        ("0.24.0", "--max-num-seqs 1024", None, "largest CUDA graph is for 512"),
        ("0.32.0", "--max-num-seqs 1024", None, None),
        ("0.32.0", "--max-num-seqs 1024", "h200", "largest CUDA graph is for 512"),
        ("0.32.0", "--max-num-seqs 1025", "gb200", "largest CUDA graph is for 1024"),
        ("0.24.0", "--max-num-seqs 1024 --enforce-eager", None, None),
        ("0.24.0", f"--max-num-seqs 1024 {WIDE} {HT}", None, None),
        ("0.24.0", '--max-num-seqs 1024 --kv-transfer-config \'{"kv_role":"kv_producer"}\'', None, None),
        ("0.24.0", "--max-num-seqs 1024 --compilation-config.cudagraph_mode NONE", None, None),
        (None, "--max-num-seqs 513", None, None),
    ],
)
def test_capture_sizes(version: str | None, flags: str, gpu: str | None, said: str | None) -> None:
    found = of_flags("capture-sizes", version, f"--model m {flags}", gpu=gpu)
    assert [str(said) in f.message for f in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("version", "backend", "tp", "gpu", "harm"),
    [
        ("0.14.1", "flashinfer_all2allv", 1, "gb200", Harm.WRONG_ANSWERS),
        ("0.33.0", "flashinfer_nvlink_two_sided", 1, "gb200", Harm.WRONG_ANSWERS),
        ("0.33.0", "flashinfer_nvlink_one_sided", 1, "gb200", None),
        ("0.20.2", "flashinfer_nvlink_one_sided", 2, None, Harm.WRONG_ANSWERS),
        ("0.20.2", "flashinfer_nvlink_one_sided", 1, None, None),  # nothing is reduced over one tensor-parallel rank
        ("0.22.1", "flashinfer_nvlink_one_sided", 2, None, None),
        ("0.14.1", "flashinfer_all2allv", 1, None, None),
        ("0.24.0", "flashinfer_all2allv", 1, "b200", Harm.FRAGILE),
        ("0.14.1", "pplx", 1, None, None),
        ("0.17.1", "naive", 1, None, None),
        ("0.19.1", "naive", 1, None, Harm.WASTED),
    ],
)
def test_known_bad_backends(version: str, backend: str, tp: int, gpu: str | None, harm: Harm | None) -> None:
    flags = f"--model m {WIDE} --tensor-parallel-size {tp} --all2all-backend {backend}"
    found = of_flags("all2all-known-bad", version, flags, gpu=gpu)
    assert [f.harm for f in found] == ([harm] if harm is not None else [])


def test_routing_simulation_overrides_the_router_since_0_12() -> None:
    env = {"VLLM_MOE_ROUTING_SIMULATION_STRATEGY": "uniform_random"}
    assert of_flags("routing-simulation", "0.12.0", R1, env)
    assert not of_flags("routing-simulation", "0.11.0", R1, env)
    assert not of_flags("routing-simulation", "0.12.0", R1)


def test_fp4_weights() -> None:
    assert of_flags("deep-gemm-nvfp4", "0.14.1", FP4, {"VLLM_USE_DEEP_GEMM": "1"})
    assert not of_flags("deep-gemm-nvfp4", "0.14.1", FP4, {"VLLM_USE_DEEP_GEMM": "0"})
    assert not of_flags("deep-gemm-nvfp4", "0.14.1", R1, {"VLLM_USE_DEEP_GEMM": "1"})
    env = {"VLLM_USE_FLASHINFER_MOE_FP4": "1"}
    harms = {
        v: [f.harm for f in of_flags("nvfp4-on-hopper", v, FP4, env, "h200")] for v in ("0.14.1", "0.17.1", "0.24.0")
    }
    assert harms == {"0.14.1": [Harm.WASTED], "0.17.1": [Harm.NOT_STARTING], "0.24.0": [Harm.WASTED]}
    assert not of_flags("nvfp4-on-hopper", "0.17.1", FP4, env, "gb200")
    assert not of_flags("nvfp4-on-hopper", "0.17.1", FP4, env)


LONG = "--max-model-len 16384"


@pytest.mark.parametrize(
    ("version", "flags", "gpu", "harms"),
    [
        ("0.32.0", f"{R1} {LONG}", None, [Harm.UNKNOWN]),
        ("0.32.0", f"{R1} {LONG}", "h200", []),
        (
            "0.32.0",
            f"--model deepseek-ai/DeepSeek-R1 --tensor-parallel-size 8 {LONG}",
            "h100-80gb",
            [Harm.NOT_STARTING],
        ),
        ("0.32.0", f"--model deepseek-ai/DeepSeek-R1 --tensor-parallel-size 8 {LONG}", "h200", []),
        ("0.32.0", f"--model deepseek-ai/DeepSeek-R1 {LONG}", "gb300", [Harm.NOT_STARTING]),
        ("0.32.0", f"{R1} {LONG} --max-num-seqs 600 --max-num-batched-tokens 600", "h200", [Harm.WASTED]),
        ("0.32.0", f"{R1} {LONG} --max-num-seqs 512 --max-num-batched-tokens 512", "h200", []),
        ("0.32.0", f"{R1} {LONG} --max-num-seqs 600 --kv-cache-dtype fp8", "h200", []),
        ("0.32.0", f"{R1} {LONG} --cpu-offload-gb 10", "h100-80gb", []),
        ("0.32.0", f"{R1} {LONG} $MORE", "h100-80gb", []),
        ("0.32.0", f"{R1} --max-model-len {'9' * 400}", "h200", []),
        ("0.32.0", f"--model deepseek-ai/DeepSeek-R1-Distill-Qwen-32B {LONG}", "h200", []),
        ("0.32.0", f"--model cognitivecomputations/DeepSeek-R1-AWQ {LONG}", "h200", []),
        ("0.32.0", f"--model nvidia/DeepSeek-R1-0528-FP4-v2 {LONG}", "b200", []),  # its attention is in FP4 too
        (None, f"{R1} {LONG}", None, [Harm.UNKNOWN]),
    ],
)
def test_memory(version: str | None, flags: str, gpu: str | None, harms: list[Harm]) -> None:
    found = of_flags("memory", version, flags, gpu=gpu)
    assert [f.harm for f in found] == harms, [f.message for f in found]


def test_memory_says_its_sum_and_what_each_gpu_leaves() -> None:
    flags = f"{R1} {LONG} {LL} --enable-eplb --eplb-config.num_redundant_experts 32"
    (found,) = of_flags("memory", "0.12.0", flags, {"VLLM_MOE_DP_CHUNK_SIZE": "384"})
    assert found.message.startswith("no GPU is named; for KV on h100-80gb 2.3 GB are left, on h200 61.0 GB are left")
    assert (
        "routed experts 46.0 GB: (256 + 32 redundant) / 16 ranks x 58 layers x 44.0M weights x 1 bytes"
        in found.evidence
    )
    assert any(line.startswith("DeepEP low-latency buffer 6.4 GB: ") for line in found.evidence)
    assert any("activations" in line for line in found.evidence)


def test_memory_says_that_a_buffer_is_not_counted_where_the_release_is_not_known() -> None:
    (found,) = of_flags("memory", None, f"{R1} {LONG} {LL}")
    assert any(line.startswith("nor DeepEP's low-latency buffer") for line in found.evidence)


def test_fp4_weights_are_counted_for_blackwell_only() -> None:
    (found,) = of_flags("memory", "0.32.0", f"{FP4} {LONG}")
    assert "on b200" in found.message
    assert "h200" not in found.message


@pytest.mark.parametrize("image", ["vllm/vllm-openai-rocm:v0.32.0", "vllm/vllm-openai-cpu:v0.32.0"])
def test_what_holds_for_nvidia_alone_is_not_said_of_others(image: str) -> None:
    text = f"#!/bin/bash\nvllm serve {R1} --block-size 1\n"
    manifest = pod(f"{R1} {LONG} --block-size 1 --enable-dbo", 8).replace("vllm/vllm-openai:v0.32.0", image)
    assert of_text("memory", text)
    for code in ("memory", "block-size", "dbo-backend"):
        assert not of_text(code, manifest), code


def test_pages_name_the_harm_they_do() -> None:
    assert rule("memory").harm is Harm.NOT_STARTING
    assert rule("routing-simulation").harm is Harm.WRONG_ANSWERS
