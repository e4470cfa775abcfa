"""Our recipes check clean with every release, and what is wrong on other hardware is said before anybody rents it."""

from pathlib import Path

import pytest

from baton.catalogue.engine import versions
from baton.check.bundle import Bundle, of_sources, read_bundle
from baton.check.finding import Finding
from baton.check.run import check
from baton.check.text import Source
from baton.recipe.overrides import override
from baton.recipe.recipe import load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
ALL = sorted(RECIPES.glob("*.yaml"))
FOR_GPUS = [path for path in ALL if path.stem.startswith("deepseek-")]
HOPPER, GB200, ONE_NODE = "deepseek-r1-hopper-32gpu", "deepseek-r1-gb200-16gpu", "deepseek-r1-8gpu"
ONE_SIDED = "flashinfer_nvlink_one_sided"
GIBBERISH = "reported-gibberish"


def bundle(recipe: str, *settings: str, engine: str | None = None) -> Bundle:
    path = RECIPES / f"{recipe}.yaml"
    text = override(path.read_text(encoding="utf-8"), settings, source=str(path))
    return of_sources([Source(str(path), text)], engine=engine)


def found(recipe: str, *settings: str, engine: str | None = None) -> tuple[Finding, ...]:
    return check(bundle(recipe, *settings, engine=engine)).findings


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_recipe_checks_clean(path: Path) -> None:
    """No error, no warning and no note, in either role."""
    given = read_bundle([path])
    assert [launch.side for launch in given.engines] == ["prefill", "decode"]
    assert not [f"{f.span}: {f.code}: {f.message}" for f in check(given).findings]


@pytest.mark.parametrize("version", versions("vllm"))
@pytest.mark.parametrize("path", FOR_GPUS, ids=lambda path: path.stem)
def test_a_recipe_checks_clean_with_every_release(path: Path, version: str) -> None:
    """Setting engine.version is all there is to do, and `--engine` says the same."""
    by_field = found(path.stem, f"engine.version={version}")
    by_option = found(path.stem, engine=f"vllm-{version}")
    assert not [f"{f.span}: {f.code}: {f.message}" for f in by_field if f.code != GIBBERISH]
    assert [(f.code, f.message) for f in by_option] == [(f.code, f.message) for f in by_field]


@pytest.mark.parametrize("path", FOR_GPUS, ids=lambda path: path.stem)
def test_without_its_eras_an_old_release_refuses_it(path: Path) -> None:
    """A recipe without its eras does not check clean with the oldest release."""
    codes = {f.code for f in found(path.stem, "eras=[]", engine="vllm-0.11.0")}
    assert "flag-too-new" in codes


@pytest.mark.parametrize(
    ("recipe", "role", "version", "env", "flags"),
    [
        (HOPPER, 1, "0.14.1", {"VLLM_MOE_DP_CHUNK_SIZE": "384"}, {"--enable-scale-out": None}),
        (HOPPER, 1, "0.33.0", {"VLLM_MOE_DP_CHUNK_SIZE": None}, {"--enable-scale-out": True}),
        (HOPPER, 0, "0.11.0", {"VLLM_ALL2ALL_BACKEND": "deepep_high_throughput"}, {"--all2all-backend": None}),
        (
            GB200, 1, "0.13.0",
            {"VLLM_MOE_DP_CHUNK_SIZE": "512", "VLLM_USE_FLASHINFER_MOE_FP4": "1"},
            {"--all2all-backend": "allgather_reducescatter", "--enable-eplb": True},
        ),
        (GB200, 0, "0.14.1", {"VLLM_ENABLE_MOE_DP_CHUNK": "0"}, {}),
        (GB200, 0, "0.12.0", {"VLLM_ENABLE_MOE_DP_CHUNK": None}, {"--enable-eplb": None, "--eplb-config": None}),
        (GB200, 0, "0.18.1", {"VLLM_USE_FLASHINFER_MOE_FP4": None}, {"--all2all-backend": ONE_SIDED}),
        (GB200, 0, "0.33.0", {"VLLM_ENABLE_MOE_DP_CHUNK": None}, {"--enable-eplb": True}),
    ],
)  # fmt: skip
def test_an_era_sets_what_its_releases_need(
    recipe: str, role: int, version: str, env: dict[str, str | None], flags: dict[str, object]
) -> None:
    """The published settings of each release, and nothing that it does not know."""
    launch = bundle(recipe, engine=f"vllm-{version}").engines[role]
    assert {name: launch.env[name].value if name in launch.env else None for name in env} == env
    assert {name: launch.value(name) if launch.given(name) else None for name in flags} == flags


def test_a_release_of_dynamo_is_its_vllm() -> None:
    """dynamo 1.6.1 embeds vLLM 0.31.0, 0.8.1 embeds 0.12.0: eras and catalogue are those."""
    new, old = (bundle(GB200, engine=f"dynamo-{version}").engines[0] for version in ("1.6.1", "0.8.1"))
    assert (new.version.name, old.version.name) == ("vLLM 0.31.0", "vLLM 0.12.0")
    assert (new.given("--enable-eplb") is None, old.given("--enable-eplb") is None) == (False, True)


def test_a_finding_stands_at_the_era_that_brings_the_setting() -> None:
    """The line to change is the one that decides."""
    given = bundle(GB200, "engine.version=0.12.0")
    text = given.files[0].source.text
    (launch, _) = given.engines
    option = launch.given("--all2all-backend")
    assert option is not None
    assert option.span.line == 1 + text[: text.index("allgather_reducescatter")].count("\n")
    span = launch.env["VLLM_USE_FLASHINFER_MOE_FP4"].span
    assert text[span.start : span.end] == "VLLM_USE_FLASHINFER_MOE_FP4"


@pytest.mark.parametrize(
    ("recipe", "old", "new", "message"),
    [
        (HOPPER, "accelerator: h200", "accelerator: h100-80gb", "on h100-80gb KV holds 15 sequences"),
        (HOPPER, "batched-tokens: 256 ", "batched-tokens: 8192 ", "on h200 nothing is left"),
        (HOPPER, "redundant_experts: 32", "redundant_experts: 30", "256 + 30 experts do not divide by 16 ranks"),
        (GB200, "nvlink_one_sided", "nvlink_two_sided", "gibberish on GB200"),
        ("tiny-local", "version: 0.32.0", "version: 0.10.0", "vllm 0.10.0 is older than the catalogue"),
    ],
)
def test_a_change_that_cannot_work_is_refused(recipe: str, old: str, new: str, message: str) -> None:
    path = RECIPES / f"{recipe}.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    told = check(of_sources([Source(str(path), text.replace(old, new))])).findings
    assert any(message in f.message for f in told), [f.message for f in told]


def test_a_refusal_stands_at_the_field_that_it_names() -> None:
    given = bundle(HOPPER, "roles.decode.dp_size=15")
    (told,) = check(given).findings
    assert told.message.startswith("roles.decode: dp_size 15 x tp_size 1 = 15 ranks")
    text = given.files[0].source.text
    assert text[told.span.start :].startswith("nodes: 2\n    gpus_per_node: 8\n    dp_size: 15")


BF16_REPO = ("model.repo=somebody/DeepSeek-R1-BF16", "model.path=/model-cache/deepseek-r1-bf16")
FP8_REPO = ("model.repo=deepseek-ai/DeepSeek-R1", "model.path=/model-cache/deepseek-r1", "model.quantization=fp8")


@pytest.mark.parametrize("repo", [(), BF16_REPO])
def test_bf16_on_sixteen_h100_is_refused_with_the_sum(repo: tuple[str, ...]) -> None:
    """Every term, their sum, what there is, and the nearest that has room."""
    told = found(HOPPER, "hardware.accelerator=h100-80gb", "model.quantization=none", *repo)
    prefill, decode = (f for f in told if f.code == "memory")
    assert "on h100-80gb nothing is left for KV" in prefill.message
    assert "routed experts 92.0 GB: (256 + 32 redundant) / 16 ranks x 58 layers x 44.0M weights x 2 bytes" in (
        prefill.evidence
    )
    assert "together 133.6 GB, of 0.9 x 85.5 GB = 77.0 GB" in decode.evidence
    assert decode.fix is not None
    assert "DP 48 (experts spread over all ranks) on h100-80gb; or these sizes on h200, b200" in decode.fix.words
    assert [f.code for f in told if f.code != "memory"] == ([] if repo else ["weights-format"])


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        (
            HOPPER,
            ["model.quantization=none"],
            "deepseek-ai/DeepSeek-R1 is stored in fp8, and the engine does not make bf",
        ),
        (HOPPER, ["model.quantization=nvfp4"], "stored in fp8, and the engine does not make nvfp4"),
        (GB200, ["model.quantization=fp8"], "nvidia/DeepSeek-R1-FP4 is stored in nvfp4"),
        ("deepseek-v2-lite-2gpu", ["model.quantization=fp8"], None),
        ("deepseek-v2-lite-2gpu", ["model.dtype=float16"], None),
    ],
)
def test_weights_are_in_the_format_that_the_recipe_says(recipe: str, settings: list[str], message: str | None) -> None:
    """One finding for both roles; BF16 weights become FP8 while they load, nothing else becomes anything."""
    told = [f.message for f in found(recipe, *settings) if f.code == "weights-format"]
    assert len(told) == (message is not None)
    assert all(message is not None and message in words for words in told)


def test_fp8_does_not_fit_both_roles_on_eight_h200() -> None:
    """The sum, the least size on this GPU, and the GPU that holds these sizes."""
    told = found(ONE_NODE, "hardware.accelerator=h200", *FP8_REPO)
    assert [f.code for f in told] == ["memory", "memory"]
    fix = told[0].fix
    assert "together 184.6 GB, of 0.9 x 150.8 GB = 135.7 GB" in told[0].evidence
    assert fix is not None
    assert fix.words.startswith("use DP 8 (experts spread over all ranks) on h200; or these sizes on gb300;")


def test_weights_in_host_memory_leave_more_for_kv() -> None:
    """--cpu-offload-gb is a term of the sum, and can make room for what does not fit otherwise."""
    tight = ("roles.decode.dp_size=4", "roles.decode.nodes=1", "model.quantization=fp8", *FP8_REPO[:2])
    assert "memory" in {f.code for f in found(GB200, *tight)}
    roomy = found(GB200, *tight, "engine.flags.cpu-offload-gb=90")
    assert "memory" not in {f.code for f in roomy}
    tighter = found(GB200, *tight, "engine.flags.cpu-offload-gb=20")
    terms = next(f.evidence for f in tighter if f.code == "memory")
    assert any(line.startswith("weights in host memory -21.5 GB: --cpu-offload-gb 20 GiB") for line in terms)


def test_every_recipe_says_what_it_ran_on() -> None:
    """A GPU recipe has run on nothing until somebody ran it."""
    ran = {path.stem: load_recipe(path).run_on for path in ALL}
    assert all(hardware == () for name, hardware in ran.items() if name.startswith("deepseek-"))
    assert all("vLLM 0.32.0" in hardware[0] for name, hardware in ran.items() if name.startswith("tiny-"))
