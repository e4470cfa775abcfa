"""What a launch says of handing KV over: its connector, where each part of that stands, which Dynamo it is.

Knows the words of --kv-transfer-config and what Dynamo releases add to them; what is wrong with them is for the rules.
"""

from __future__ import annotations

from baton.catalogue.engine import version_key
from baton.check.commands.launch import Launch
from baton.check.facts import config_keys
from baton.check.facts.config_keys import GivenKey
from baton.check.text import Span, Text

CONFIG = "--kv-transfer-config"
EXPLICIT_CONNECTOR = "1.0.2"  # dynamo: from here on no connector is taken by default
READINESS_BY_ROLE = "1.4.2"  # dynamo: from here on a model is shown only when both roles have a worker; 1.3 not checked
NIXL = ("NixlConnector", "NixlPullConnector", "NixlPushConnector")
HASHED = "0.14.1"  # vLLM: from here on NIXL compares a hash of both configurations at the first request
MISMATCH = 'the first request fails with "NIXL compatibility hash mismatch"'


def is_dynamo_between(launch: Launch, first: str | None = None, before: str | None = None) -> bool:
    """Say whether every candidate is a dynamo.vllm from `first` on and older than `before`."""
    return launch.engine == "dynamo.vllm" and all(
        (first is None or version_key(c.version) >= version_key(first))
        and (before is None or version_key(c.version) < version_key(before))
        for c in launch.version.catalogues
    )


def transfer_key(launch: Launch, name: str) -> GivenKey | None:
    """Return a key of --kv-transfer-config as it is given, the last of its name; None if it is not."""
    if not launch.all_given(CONFIG):
        return None
    found = [key for key in config_keys.given(launch) if key.option.name == CONFIG and key.path == (name,)]
    return found[-1] if found else None


def value_text(key: GivenKey) -> Text:
    """Return the value of a key as text, without JSON's quotes; the key's name if the value is not known."""
    value = key.value
    if value is None or not value.value:
        return key.key
    return value[1:-1] if value.value.startswith('"') and len(value) > 2 else value


def connector(launch: Launch) -> str | None:
    """Return the KV connector of an engine, "" for none; None if it is not known.

    Before 1.0 dynamo takes NIXL by itself, unless told `--connector none`.
    """
    if launch.all_given(CONFIG):
        named = (launch.kv_transfer or {}).get("kv_connector")
        return named if isinstance(named, str) else None
    if not launch.lacks(CONFIG):
        return None
    if launch.engine != "dynamo.vllm" or is_dynamo_between(launch, first=EXPLICIT_CONNECTOR):
        return ""
    if not is_dynamo_between(launch, before=EXPLICIT_CONNECTOR):
        return None
    option = launch.given("--connector")
    words = [word.value for word in option.words] if option is not None else ["nixl"]
    return "NixlConnector" if "nixl" in words else "" if words == ["none"] else None


def uses_nixl(launch: Launch) -> bool:
    """Say whether an engine surely hands KV over by NIXL."""
    return connector(launch) in NIXL


def place(launch: Launch, name: str) -> Span:
    """Return where to point for a flag: its use, else the program that lacks it."""
    option = launch.given(name)
    return option.span if option is not None else launch.start
