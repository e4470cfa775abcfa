"""The Recipe: what a person writes about one deployment.

A Recipe says what must run (model, engine, roles, hardware), never where: addresses, ports and cores belong to the
target. It holds engine flags and environment variables as they are, by the engine's own names; which of them exist in
which engine version is the catalogue's knowledge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from baton.recipe.cluster import Cluster, ObjectName
from baton.recipe.document import Strict, parse
from baton.recipe.era import Era
from baton.recipe.flags import Env, Flags
from baton.recipe.overrides import read_text

RecipeName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""at most 40 characters from a letter on: Services, LeaderWorkerSets and their pods are named after it"""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$")]
Positive = Annotated[int, Field(gt=0, lt=1 << 31)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Role(StrEnum):
    """What a worker is for."""

    PREFILL = "prefill"
    DECODE = "decode"


class Model(Strict):
    """The weights, and the number formats they are stored, computed and cached in."""

    name: str = Field(min_length=1, description="Name clients ask for.")
    aliases: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Other names the same model answers to; listed as aliases, never as itself.",
    )
    path: Path | None = Field(
        default=None,
        strict=False,
        description="Folder of the checkpoint, relative to the recipe; or where it is mounted.",
    )
    repo: str | None = Field(default=None, description="Hugging Face repository the checkpoint comes from.")
    revision: str | None = Field(
        default=None, description="Commit of `repo`; required with it, so that nothing drifts."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(description="Number format of the computation.")
    quantization: Literal["none", "fp8", "nvfp4"] = Field(default="none", description="Number format of the weights.")
    kv_dtype: Literal["float32", "bfloat16", "float16", "fp8"] | None = Field(
        default=None, description="Number format of the KV cache; `dtype` when not given."
    )
    max_model_len: Positive = Field(description="Longest sequence served, prompt and output, in tokens.")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.path is None and self.repo is None:
            raise ValueError("give `path` (a checkpoint folder) or `repo` with `revision` (Hugging Face)")
        if self.repo is not None and self.revision is None:
            raise ValueError(f"`repo: {self.repo}` needs `revision`, a commit: a moving branch is not a recipe")
        return self


class Engine(Strict):
    """The inference engine, its version, and the settings both roles share."""

    name: Literal["vllm"] = "vllm"
    version: str = Field(pattern=r"^\d+\.\d+(\.\d+)?([a-z0-9.+-]*)$", description="Release, such as 0.32.0.")
    flags: Flags = Field(default={}, description="Flags of `vllm serve` without the dashes; a mapping becomes JSON.")
    env: Env = Field(default={}, description="Environment variables, values as strings.")


class Hardware(Strict):
    """What one node of the deployment has."""

    accelerator: Literal["cpu", "h100-80gb", "h200", "b200", "gb200", "gb300"]
    fabric: Literal["none", "infiniband", "roce", "efa", "nvlink"] = Field(
        default="none", description="What carries all2all and KV between nodes."
    )


class KvTransfer(Strict):
    """How KV blocks go from a prefill rank to a decode rank."""

    connector: str = "NixlConnector"
    buffer_device: Literal["cpu", "cuda"] = Field(description="Where the connector's buffers lie.")
    load_failure_policy: Literal["fail", "recompute"] = Field(
        default="fail",
        description="`recompute` hides failed transfers: the metrics then lie and `baton prove` refuses it.",
    )
    lease_s: Positive = Field(
        default=30, description="How long prefill keeps KV that no decode rank asks for, seconds."
    )
    extra: dict[str, JsonValue] = Field(default={}, description="Further keys of kv_connector_extra_config.")


class Pool(Strict):
    """All replicas of one role, and how each is laid out over nodes and GPUs."""

    replicas: Positive = Field(default=1, description="Copies of the model; each is one data-parallel group.")
    nodes: Positive = Field(default=1, description="Nodes one replica spans.")
    gpus_per_node: int = Field(default=0, ge=0, description="GPUs of one node one replica uses; 0 on a CPU.")
    dp_size: Positive = Field(default=1, description="Data-parallel ranks of one replica, over all its nodes.")
    tp_size: Positive = Field(default=1, description="Tensor-parallel ranks of one data-parallel rank.")
    expert_parallel: bool = Field(default=False, description="Experts split over the dp x tp ranks of a replica.")
    load_balancing: Literal["internal", "hybrid", "external"] | None = Field(
        default=None, description="Who spreads requests over dp ranks; internal on one node, hybrid on several."
    )
    flags: Flags = Field(default={}, description="Flags of this role, over the engine's.")
    env: Env = Field(default={}, description="Environment of this role, over the engine's.")


class Roles(Strict):
    """The two pools."""

    prefill: Pool
    decode: Pool


class ApiKeysSource(Strict):
    """Where the file of API keys is: in a cluster a Secret, on one machine a file; a recipe for both names both."""

    secret: ObjectName | None = Field(
        default=None, description="Kubernetes Secret that is there already; it is mounted, never rendered."
    )
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}$")] = Field(
        default="api-keys.yaml", description="Key of that Secret which holds the file."
    )
    file: Path | None = Field(
        default=None, strict=False, description="The file on this machine, relative to the recipe."
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.secret is None and self.file is None:
            raise ValueError("give `secret` (in a cluster) or `file` (on this machine), or both")
        return self


class Gateway(Strict):
    """The one address clients talk to. Its defaults are those of `baton gateway` too."""

    host: str = "127.0.0.1"
    port: Port = Field(default=8000, description="0 takes any free port.")
    request_timeout_s: float = Field(
        default=600.0, gt=0, allow_inf_nan=False, strict=False, description="The one deadline of a request."
    )
    max_body_bytes: Positive = Field(default=32 << 20, description="Largest request body.")
    api_keys: ApiKeysSource | None = Field(
        default=None, description="Who may ask, and how much; without it anybody may, without limits."
    )
    # Most clients have given up by then.
    ttft_deadline_s: float = Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        strict=False,
        description="A request that can't start within this is turned away, unless its API key says otherwise.",
    )
    max_queued: Positive = Field(default=1024, description="Most requests that wait to be let in.")
    # Engines serve first come, first served; one with half a second of work doesn't run dry between two steps.
    hold_s: float = Field(
        default=0.5,
        ge=0,
        allow_inf_nan=False,
        strict=False,
        description="Requests wait in the gateway while every engine's queue is longer than this.",
    )
    processes: Annotated[int, Field(gt=0, le=256)] = Field(
        default=1, description="Above 1: so many share the port, and one more routes for all of them."
    )
    exact_prefixes: bool = Field(
        default=False, description="Route by the engines' KV events; prompts are tokenized by prefill engines first."
    )


class TestRequest(Strict):
    """What `baton test` sends."""

    __test__ = False

    prompt: str = Field(default="Say hello!", min_length=1)
    max_tokens: Positive = 64


class Recipe(Strict):
    """One disaggregated deployment as a person writes it."""

    baton: Literal[1] = Field(description="Version of the recipe format.")
    name: RecipeName = Field(description="At most 40 lower-case letters, digits and hyphens, from a letter on.")
    description: str = ""
    run_on: tuple[str, ...] = Field(default=(), strict=False, description="Hardware it has really been run on.")
    model: Model
    engine: Engine
    hardware: Hardware
    kv_transfer: KvTransfer
    roles: Roles
    gateway: Gateway = Gateway()
    cluster: Cluster = Cluster()
    test: TestRequest = TestRequest()
    eras: tuple[Era, ...] = Field(
        default=(), strict=False, description="What other releases of the engine need; every one that fits, in order."
    )

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe's meaning: comments and key order do not change it."""
        meaning = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(meaning.encode()).hexdigest()


def load_recipe(path: Path, settings: Sequence[str] | None = None) -> Recipe:
    """Read a recipe file with fields set by `--set`.

    Raises   ConfigError naming file, line, field, value and what is allowed
    """
    return parse(read_text(path, settings), Recipe, source=str(path))
