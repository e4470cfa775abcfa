"""Where Hugging Face's library keeps what it fetched. Looks at nothing, fetches nothing.

Source: huggingface_hub docs, "Environment variables" (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME) and "Manage your cache"
(models--OWNER--NAME/snapshots/COMMIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def cache(env: Mapping[str, str], home: Path) -> Path:
    """Return the folder of all repositories."""
    user = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    hf_home = Path(env.get("HF_HOME") or user / "huggingface")
    return Path(env.get("HF_HUB_CACHE") or hf_home / "hub").expanduser()


def snapshot(hub: Path, repo: str, revision: str) -> Path:
    """Return the folder that a repository is in, or will be in once it was fetched; `revision` is a commit."""
    return hub / f"models--{repo.replace('/', '--')}" / "snapshots" / revision
