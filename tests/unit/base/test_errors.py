"""One tree of errors, and what a request's error carries."""

import pytest

from baton.base.errors import BatonError, BugError, ConfigError, RequestError, WorkerError


@pytest.mark.parametrize("kind", [ConfigError, RequestError, WorkerError, BugError])
def test_every_error_is_a_baton_error_and_no_other_kind(kind: type[BatonError]) -> None:
    assert issubclass(kind, BatonError)
    others = {ConfigError, RequestError, WorkerError, BugError} - {kind}
    assert not any(issubclass(kind, other) for other in others)


def test_a_request_error_carries_what_the_client_is_told() -> None:
    error = RequestError(429, "Slow down.", kind="rate_limit_error", param="n", retry_after_s=2.5)
    assert (error.status, error.message, str(error)) == (429, "Slow down.", "Slow down.")
    assert (error.kind, error.param, error.retry_after_s) == ("rate_limit_error", "n", 2.5)
    plain = RequestError(400, "No.")
    assert (plain.kind, plain.param, plain.retry_after_s) == ("invalid_request_error", None, None)
