"""What Kubernetes does to a container's words and variables before a process sees them.

Source of the rules: Kubernetes, third_party/forked/golang/expansion (Expand), and pkg/kubelet, where each variable is
expanded with those defined before it, and command and args with all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_REFERENCE = re.compile(r"\$(?:(?P<escaped>\$)|\((?P<name>[^)]*)\)|(?P<wide>[^\x00-\x7f]))")


def expand(text: str, env: Mapping[str, str]) -> str:
    """Put variables in: `$$` is `$`, `$(NAME)` is its value, or stays as it is if there is none.

    A `$` before a character that is not ASCII breaks that character: Kubernetes takes its first byte for a whole one.
    """

    def value(found: re.Match[str]) -> str:
        if found["wide"]:
            first, *rest = found["wide"].encode()
            return f"${chr(first)}{bytes(rest).decode(errors='surrogateescape')}"
        return "$" if found["escaped"] else env.get(found["name"], found[0])

    return _REFERENCE.sub(value, text)


def environment(container: Mapping[str, Any], of_pod: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """The variables of a container's process.

    of_pod   the pod's fields, by the path that names them in fieldRef
    before   what an operator's webhook puts before the others
    """
    found = dict(before)
    for each in container.get("env", []):
        if "value" in each:
            found[each["name"]] = expand(each["value"], found)
        elif "fieldRef" in each["valueFrom"]:
            found[each["name"]] = of_pod[each["valueFrom"]["fieldRef"]["fieldPath"]]
    return found


def words(container: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """The words of a container's process."""
    return [expand(word, env) for word in (*container.get("command", []), *container.get("args", []))]
