"""Reading what a URL holds, for images that are imported from one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import aiohttp

from dockerd_py.engine.model import Progress, ProgressSink
from dockerd_py.errors import BadParameter
from dockerd_py.version import VERSION

CHUNK = 256 * 1024
CONNECT_SECONDS = 30
STALL_SECONDS = 120


def check(url: str) -> str:
    """``url`` with its scheme (http, where none is given).  Raises BadParameter for anything but http and https."""
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise BadParameter(f"cannot import from {url!r}: it is no http or https URL")
    return whole


async def download(url: str, progress: ProgressSink | None) -> AsyncGenerator[bytes, None]:
    """The bytes at ``url``, as they come.  Raises BadParameter when they can't be had, or stop coming."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
    headers = {"User-Agent": f"pydockerd/{VERSION}", "Accept-Encoding": "identity"}
    if progress is not None:
        progress(Progress(f"Downloading from {url}"))
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False) as session,
            session.get(url) as response,
        ):
            if response.status != 200:
                raise BadParameter(f"cannot import from {url}: the server answered {response.status} {response.reason}")
            total = response.content_length or 0
            current = 0
            async for chunk in response.content.iter_chunked(CHUNK):
                current += len(chunk)
                if progress is not None:
                    progress(Progress("Downloading", current=current, total=total))
                yield chunk
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise BadParameter(f"cannot import from {url}: {reason}") from error
