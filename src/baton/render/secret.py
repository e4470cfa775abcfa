"""The Secret with the Hugging Face token: the one object that goes to the cluster without ever being in a file."""

from __future__ import annotations

import base64

from baton.recipe.deployment import Deployment
from baton.render import model_cache, names
from baton.render.documents import Object


def holding(deployment: Deployment, token: str) -> Object:
    """Return the Secret that holds a token. Recipes share it, so no recipe's name is in it."""
    return _object(deployment, base64.b64encode(token.encode()).decode())


def hidden(deployment: Deployment) -> Object:
    """Return the same Secret for people to look at: what stands in place of the token is no value of it."""
    return _object(deployment, "<hidden>")


def _object(deployment: Deployment, value: str) -> Object:
    wanted = deployment.cluster.hf_secret
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": wanted.name,
            "namespace": deployment.cluster.namespace,
            "labels": model_cache.shared_labels(names.DOWNLOAD),
        },
        "type": "Opaque",
        "data": {wanted.key: value},
    }
