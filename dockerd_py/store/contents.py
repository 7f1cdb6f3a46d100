"""A container's files from the daemon's side: the list of changes, and the tar of a new layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockerd_py.store.archive.helper import answer, helper
from dockerd_py.store.layers import RwView


async def changes(view: RwView) -> list[tuple[str, int]]:
    """Absolute paths with their kinds (see `store.changes`), parents before children.  Raises StoreError."""
    result = await answer("layertar", _arguments(view, tar=False), doing="cannot compare the container with its image")
    return [(f"/{path}", kind) for path, kind in result["changes"]]


@asynccontextmanager
async def layer(view: RwView) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The tar of a layer with the container's changes; it is read inside the block.  Raises StoreError, when it is
    read: the helper begins while whoever reads it is still at its own preparations.
    """
    stack = AsyncExitStack()
    writing = helper("layertar", _arguments(view, tar=True), doing="cannot make a layer of the container's files")
    beginning = asyncio.ensure_future(stack.enter_async_context(writing))

    async def tar() -> AsyncGenerator[bytes, None]:
        one = await asyncio.shield(beginning)
        async with aclosing(one.content()) as content:
            async for piece in content:
                yield piece

    try:
        async with aclosing(tar()) as pieces:
            yield pieces
    finally:
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        await stack.aclose()


@dataclass(frozen=True)
class Root:
    """A container's root filesystem as it is mounted, and what else is mounted in it."""

    path: Path
    mounts: tuple[tuple[str, str, bool], ...]
    """(source on the host, target in the container, read-only), in any order."""


@asynccontextmanager
async def copied_out(
    root: Root, path: str, *, tar: bool = True, follow: bool = False
) -> AsyncIterator[tuple[dict[str, Any], AsyncGenerator[bytes, None]]]:
    """The stat of a path (name, size, mode, mtime in nanoseconds, link) and a tar of it.

    follow: of what a link there leads to.  Raises NotFound (its text is the path), BadParameter, StoreError.
    """
    arguments = {**_root_arguments(root, path), "action": "get" if tar else "stat", "follow": follow}
    async with helper("copying", arguments) as one, aclosing(one.content()) as content:
        yield one.result, content


async def copy_in(
    root: Root,
    path: str,
    source: AsyncIterator[bytes],
    *,
    no_overwrite: bool = False,
    owner: tuple[int, int] | None = None,
    limit: int = 0,
) -> None:
    """Unpack a tar, plain or compressed, into a directory.

    no_overwrite: refuse to put a directory in a file's place, or the other way round.  owner: of all that is made.
    limit: bytes that the tar may have, uncompressed; 0 for no limit.
    Raises NotFound (its text is the path), BadParameter, BadArchive, Denied (read-only), StoreError.
    """
    arguments = {
        **_root_arguments(root, path), "action": "put", "no_overwrite": no_overwrite, "owner": owner, "limit": limit,
    }  # fmt: skip
    await answer("copying", arguments, source)


def _root_arguments(root: Root, path: str) -> dict[str, Any]:
    return {"root": str(root.path), "mounts": root.mounts, "path": path}


def _arguments(view: RwView, *, tar: bool) -> dict[str, Any]:
    return {
        "home": str(view.home),
        "upper": view.upper,
        "lowers": list(view.lowers),
        "marks": view.marks.value,
        "tar": tar,
    }
