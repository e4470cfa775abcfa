"""Who may send requests: the tenants of an API keys file, or, without one, everybody as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from baton.base.errors import ConfigError, RequestError
from baton.gateway.queue import tenant_of
from baton.policy.tenant import Tenant
from baton.recipe.api_keys import ApiKey, key_sha256, load_api_keys

log = logging.getLogger("baton.gateway")

ANYBODY = ""
"""The name by which everybody goes where there is no file."""
_CLASS_OF_ANYBODY = "standard"

_Stamp: TypeAlias = tuple[int, int, int] | None
"""By what a file differs from the one that was there before: time, inode, size; None where there is none. A mounted
Secret is a link to a folder that kubelet makes anew."""


class Keys:
    """Keys by their hash, and what is left of each one's limits.

    path              None: no key is asked for, and nobody has limits
    classes           highest first
    ttft_deadline_s   of keys that have none of their own
    Raises            ConfigError when the file can't be read
    """

    def __init__(self, path: Path | None, classes: tuple[str, ...], ttft_deadline_s: float, now_s: float) -> None:
        self._path = path
        self._classes = classes
        self._ttft_deadline_s = ttft_deadline_s
        self._keys: Mapping[str, ApiKey] = {}
        self._read: _Stamp = None
        self._seen: _Stamp = None
        self._tenants = {ANYBODY: Tenant("anybody", classes.index(_CLASS_OF_ANYBODY), ttft_deadline_s)}
        if path is not None:
            self._load(path, now_s)

    def reload(self, now_s: float) -> None:
        """Read the file again; a key that is as it was keeps what is left of its limits, a bad file changes nothing."""
        if self._path is None:
            return
        try:
            self._load(self._path, now_s)
        except ConfigError as error:
            log.error("API keys stay as they were: %s", error)
        else:
            log.info("API keys: %d", len(self._keys))

    def refresh(self, now_s: float) -> None:
        """`reload` if the file is not the one read last, and as it was a look ago: it may be half written until then.

        To be called again and again: nobody sends a signal when a mounted Secret has changed.
        """
        if self._path is None:
            return
        before, self._seen = self._seen, _stamp(self._path)
        if self._seen == before != self._read:
            self.reload(now_s)

    def of(self, headers: Mapping[str, str]) -> str:
        """The hash of a request's key.

        Raises   RequestError 401
        """
        if self._path is None:
            return ANYBODY
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _unknown("You didn't provide an API key; send one as `Authorization: Bearer KEY`.")
        digest = key_sha256(key.strip())
        if digest not in self._tenants:
            raise _unknown("The API key is unknown; ask whoever runs this service for one.")
        return digest

    def tenant(self, digest: str) -> Tenant:
        """Whose key it is.

        Raises   RequestError 401 for a key that was taken away meanwhile
        """
        tenant = self._tenants.get(digest)
        if tenant is None:
            raise _unknown("The API key is not valid any more; ask whoever runs this service for another.")
        return tenant

    def settle(self, digest: str, num_tokens: int, num_used: int, now_s: float) -> None:
        """A request that was charged `num_tokens` took `num_used`; of a key that was taken away, nothing is kept."""
        if (tenant := self._tenants.get(digest)) is not None:
            tenant.settle(num_tokens, num_used, now_s)

    def _load(self, path: Path, now_s: float) -> None:
        self._read = _stamp(path)  # before it is read: what changes meanwhile is seen at the next look
        keys = load_api_keys(path).by_sha256()
        self._tenants = {
            digest: self._tenants[digest]
            if self._keys.get(digest) == key
            else tenant_of(key, self._classes, self._ttft_deadline_s, now_s)
            for digest, key in keys.items()
        }
        self._keys = keys


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _unknown(message: str) -> RequestError:
    return RequestError(401, message, kind="authentication_error")
