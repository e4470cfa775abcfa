"""What can go wrong in one exchange with one engine.

EngineError
|-- EngineUnreachable    no connection: refused, no route, unknown name, or not in connect_timeout_s
|-- EngineDisconnected   the connection ended before the response did
|-- EngineTimeout        the deadline passed
`-- EngineGarbled        the answer is not HTTP, or larger than the caller allows
"""

from baton.base.errors import WorkerError
from baton.engine.origin import Origin


class EngineError(WorkerError):
    """One exchange with one engine failed; `doing` says what was under way."""

    def __init__(self, origin: Origin, doing: str, why: str, received_bytes: int = 0) -> None:
        super().__init__(f"engine {origin}: {why} while {doing}")
        self.origin = origin
        self.doing = doing
        self.received_bytes = received_bytes
        """body bytes received before the failure"""


class EngineUnreachable(EngineError):
    """No connection could be made; nothing was sent."""


class EngineDisconnected(EngineError):
    """The connection ended before the response was complete; the engine may have worked on the request."""


class EngineTimeout(EngineError):
    """The deadline passed before the response was complete."""


class EngineGarbled(EngineError):
    """The engine answered what is not HTTP, has no certain end, or is larger than allowed."""
