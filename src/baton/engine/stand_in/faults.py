"""What goes wrong with a stand-in, and with how many requests."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from baton.base.errors import ConfigError


class Refusal(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An answer in place of a generation."""

    status: int
    body: str = ""
    """as UTF-8; surrogates stand for bytes that are none, as `surrogateescape` makes them"""


class Flap(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The server is there for `up_s` seconds, gone for `down_s`, and so on."""

    up_s: float
    down_s: float


class Faults(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Faults of one server; POST /faults adds to them, DELETE clears them.

    Those of a request are taken when it arrives. `limits` says how many requests each may hit: {"refuse": 2}.
    """

    die: bool = False
    """close everything, at once; the command line's process exits"""
    die_after: int | None = None
    """the same, when a stream has had so many tokens"""
    flap: Flap | None = None
    stall: bool = False
    """no step begins until this is over; what is asked meanwhile waits, and can be aborted"""
    refuse: Refusal | None = None
    """answer this; KV that the request names is left alone"""
    answer: str | None = None
    """answer 200 with this body, encoded as a refusal's"""
    empty: Literal["content", "choices", "body"] | None = None
    """answer 200 with no content, no choices, or no bytes"""
    hang_before_head: bool = False
    """never answer"""
    hang_after: int | None = None
    """hold a stream after so many tokens, until the faults are cleared"""
    cut_after: int | None = None
    """cut the connection after so many tokens of a stream"""
    cut_inside: bool = False
    """cut it in the middle of an event"""
    error_after: int | None = None
    """send an error event in place of this token of a stream"""
    garbage_after: int | None = None
    """send an event that is not JSON in place of this token"""
    no_done: bool = False
    """end streams without [DONE]"""
    slow: float | None = None
    """steps with such a request take so many times longer"""
    drop_notice: bool = False
    """on decode: fetch KV, or give it up, without telling prefill"""
    expire_lease: bool = False
    """on prefill: end the lease as soon as the KV is offered"""
    corrupt_kv: bool = False
    """on prefill: whoever fetches gets other contents"""
    truncate_kv: bool = False
    """on prefill: whoever fetches gets the first half, and zeros"""
    weights: str | None = None
    """compute with weights of this name"""
    limits: dict[str, int] = {}

    def __post_init__(self) -> None:
        names = set(FAULTS)
        if unknown := sorted(self.limits.keys() - names):
            raise ValueError(f"limits names {', '.join(unknown)}; faults are {', '.join(sorted(names))}")
        if wrong := {name: limit for name, limit in self.limits.items() if limit < 1}:
            raise ValueError(f"limits are {wrong}; a limit is at least 1 request")

    @property
    def active(self) -> dict[str, Any]:
        """Faults that are set, by name."""
        return {name: value for name in FAULTS if (value := getattr(self, name)) is not None and value is not False}

    def set(self, **faults: Any) -> None:
        """Add faults to those there are.

        Raises   ConfigError for a fault that does not exist
        """
        if unknown := sorted(faults.keys() - set(FAULTS) - {"limits"}):
            raise ConfigError(f"unknown faults: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
        self.limits = {**self.limits, **faults.pop("limits", {})}
        for name, value in faults.items():
            setattr(self, name, value)

    def clear(self) -> None:
        """No faults."""
        for name in FAULTS:
            setattr(self, name, getattr(NONE, name))
        self.limits = {}

    def take(self) -> Faults:
        """The faults of one request that arrives now; those that have hit as many as they may are over."""
        active = self.active
        if not active:
            return NONE
        taken = Faults(**active)
        for name in [name for name in self.limits if name in active]:
            self.limits[name] -= 1
            if self.limits[name] == 0:
                del self.limits[name]
                setattr(self, name, getattr(NONE, name))
        return taken


FAULTS = tuple(name for name in Faults.__struct_fields__ if name != "limits")
NONE = Faults()
"""Shared by every request without faults; nobody changes it."""


def read_faults(raw: bytes) -> dict[str, Any]:
    """The faults of a request's body, by name, with `limits` if given.

    Raises   ConfigError saying which field is wrong
    """
    try:
        faults = msgspec.json.decode(raw, type=Faults)
        given = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"faults cannot be read: {error}; there are {', '.join(FAULTS)} and limits") from error
    return {name: getattr(faults, name) for name in given}
