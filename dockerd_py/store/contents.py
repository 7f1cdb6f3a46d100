"""A container's files from the daemon's side: the list of changes, and the tar of a new layer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from dockerd_py.store.archive.helpers import answer, helper
from dockerd_py.store.layers import RwView


async def changes(view: RwView) -> list[tuple[str, int]]:
    """Absolute paths with their kinds (see `store.changes`), parents before children.  Raises StoreError."""
    result = await answer("layertar", _arguments(view, tar=False))
    return [(f"/{path}", kind) for path, kind in result["changes"]]


@asynccontextmanager
async def layer(view: RwView) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The tar of a layer with the container's changes; it is read inside the block.  Raises StoreError."""
    async with helper("layertar", _arguments(view, tar=True)) as one, aclosing(one.content()) as tar:
        yield tar


def _arguments(view: RwView, *, tar: bool) -> dict[str, Any]:
    return {
        "home": str(view.home),
        "upper": view.upper,
        "lowers": list(view.lowers),
        "layer": view.is_layer,
        "tar": tar,
    }
