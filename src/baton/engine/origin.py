"""Where one engine listens."""

from typing import NamedTuple, Self
from urllib.parse import urlsplit

from baton.base.errors import ConfigError


class Origin(NamedTuple):
    """Where one engine listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Self:
        """Origin of "http://host[:port]"; port 80 if left out.

        Raises   ConfigError on https (no TLS here: keep engines on a private network) and on anything but an origin
        """
        wanted = "expected http://HOST[:PORT] with no path"
        try:
            parts = urlsplit(url)
            port = 80 if parts.port is None else parts.port
        except ValueError as error:
            raise ConfigError(f"engine address {url!r}: {error}; {wanted}") from error
        if parts.scheme == "https":
            raise ConfigError(f"engine address {url!r}: engines are spoken to in plain http, there is no TLS; {wanted}")
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
            raise ConfigError(f"engine address {url!r}: {wanted}")
        return cls(parts.hostname, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
