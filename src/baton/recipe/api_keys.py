"""The API keys file: who may send requests, in which class, and how much.

It holds hashes, so it may lie beside the other files of a deployment: from one nobody guesses a key of 128 random bits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from baton.base.errors import ConfigError
from baton.recipe.document import Strict, parse, read_text
from baton.recipe.recipe import Name

HOW_TO_HASH = 'printf %s "$KEY" | sha256sum'

_NOT_TO_BE_SHOWN = re.compile(r"^(.*?: keys(?:\.\d+(?:\.sha256)?)?: )got .*$", re.MULTILINE)
"""What stands where keys or their hashes should may be a key."""


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("expected 64 hexadecimal digits")
    return text


def _with_rate(burst: float | None, info: ValidationInfo) -> float | None:
    rate = str(info.field_name).replace("burst", "per_s")
    if burst is not None and info.data.get(rate, 0.0) is None:
        raise ValueError(f"a burst needs a rate; give {rate} too")
    return burst


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Burst = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class ApiKey(Strict):
    """One key, and what whoever holds it may do."""

    name: Name = Field(description="Shown in logs, metrics and errors instead of the key.")
    sha256: Annotated[str, AfterValidator(_sha256)] = Field(description="SHA-256 of the key's UTF-8 text, as hex.")
    priority: Literal["interactive", "standard", "batch"] = Field(
        default="standard", description="The highest class its requests may be of."
    )
    requests_per_s: Rate | None = Field(default=None, description="None = no limit.")
    requests_burst: Annotated[Burst | None, AfterValidator(_with_rate)] = Field(
        default=None, description="Requests that may come at once; None = one second's."
    )
    tokens_per_s: Rate | None = Field(default=None, description="Prompt and output together; None = no limit.")
    tokens_burst: Annotated[Burst | None, AfterValidator(_with_rate)] = Field(
        default=None, description="Tokens that may be asked for at once; None = one minute's."
    )
    ttft_deadline_s: Rate | None = Field(
        default=None, description="A request that can't start within this is turned away; None = the gateway's."
    )


class ApiKeysFile(Strict):
    """Every key of a deployment; names and hashes are unique."""

    baton: Literal[1] = 1
    keys: tuple[ApiKey, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if not self.keys:
            raise ValueError("keys lists none; a gateway without keys needs no file")
        names = [name for name, count in Counter(key.name for key in self.keys).items() if count > 1]
        if names:
            raise ValueError(f"key names must be unique; more than once: {', '.join(names)}")
        hashes = Counter(key.sha256 for key in self.keys)
        same = [key.name for key in self.keys if hashes[key.sha256] > 1]
        if same:
            raise ValueError(f"each key may be listed once; the same hash: {', '.join(same)}")
        return self

    def by_sha256(self) -> Mapping[str, ApiKey]:
        """The keys by hash: look up `key_sha256` of what a client sends."""
        return MappingProxyType({key.sha256: key for key in self.keys})


def key_sha256(key: str) -> str:
    """The hash of a key as a client sends it.

    Looking a hash up need not take constant time: whoever could time it would learn of a hash, whose key he can't find.
    It takes less than a microsecond, so nothing is cached, and no key stays in memory.
    """
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def load_api_keys(path: Path) -> ApiKeysFile:
    """Read a keys file.

    Raises   ConfigError naming file, line, field and what is allowed; it shows nothing that may be a key
    """
    try:
        return parse(read_text(path, ApiKeysFile.__name__), ApiKeysFile, source=str(path))
    except ConfigError as error:
        text = _NOT_TO_BE_SHOWN.sub(
            r"\1expected {name, sha256, ...}, sha256 being 64 hexadecimal digits in quotes, of "
            f"{HOW_TO_HASH}; what is there is not shown, it may be a key",
            str(error),
        )
        raise ConfigError(text) from None
