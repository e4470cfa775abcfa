"""Every error baton raises, one tree.

    BatonError
    |-- ConfigError    what the person gave cannot be used: a recipe, a flag, a file, an environment
    |-- RequestError   one request cannot be served; carries the HTTP status and OpenAI's error type
    |-- WorkerError    one engine or child process failed
    `-- BugError       baton broke its own invariant

A message says what failed, the value, what is allowed and what to do.
"""

from __future__ import annotations


class BatonError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(BatonError):
    """What the person gave cannot be used; the command exits with 2."""


class RequestError(BatonError):
    """One request cannot be served.

    `status` is the HTTP status, `kind` OpenAI's error type, `param` the offending field of the body where there is one,
    `retry_after_s` what the client is told to wait.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.retry_after_s = retry_after_s


class WorkerError(BatonError):
    """One engine or child process failed, vanished or answered what it must not."""


class BugError(BatonError):
    """An invariant of baton's own does not hold."""
