"""The gateway's image, built from the repository's root."""

from __future__ import annotations

from baton.recipe.deployment import Deployment
from baton.render import names
from baton.render.documents import header
from baton.render.frontend import USER_ID

_TEXT = """\
ARG PYTHON=python:3.11.13-slim-bookworm
FROM ${{PYTHON}} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM ${{PYTHON}}
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \\
    pip install --no-cache-dir --no-index --find-links /wheels baton
USER {user}:{user}
EXPOSE {port}
ENTRYPOINT ["baton"]
"""


def text(deployment: Deployment) -> str:
    """Return the Containerfile: baton in a Python image, without root, that needs no network to start."""
    image = names.image(deployment, deployment.cluster.gateway_image)
    notes = (
        f"The image this deployment's gateway runs: {image}. Build it in the root of baton's repository, for the",
        "architecture of the nodes it runs on, and push it to where the cluster pulls from:",
        f"  docker build --file PATH/OF/THIS/Containerfile --tag {image} .",
    )
    return header(deployment, *notes) + _TEXT.format(user=USER_ID, port=names.HTTP_PORT)
