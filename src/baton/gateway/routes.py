"""The latest routing decisions, as /debug/routes shows them."""

from __future__ import annotations

from collections import deque
from typing import Any

from baton.engine.kv_feeds import KvFeeds
from baton.policy.decision import Decision
from baton.policy.routing import Router

_NUM_KEPT = 256


class Routes:
    """Keeps the latest decisions, of whatever is routed in this process.

    feeds   what ranks tell of their KV blocks, where they are listened to
    """

    def __init__(self, feeds: KvFeeds | None = None) -> None:
        self._feeds = feeds
        self._kept: deque[tuple[str, Decision]] = deque(maxlen=_NUM_KEPT)

    def add(self, request_id: str, decision: Decision) -> None:
        """A request was routed."""
        self._kept.append((request_id, decision))

    def explain(self, router: Router) -> dict[str, Any]:
        """The decisions, newest first, and what they rest on."""
        return {
            "routes": [
                {"request_id": request_id, **decision.as_dict()} for request_id, decision in reversed(self._kept)
            ],
            "step_times": router.times.as_dict(),
            "prefix_blocks": len(router.index),
            **({"kv_events": self._feeds.explain()} if self._feeds else {}),
        }
