"""The engine's image operations as any front door may use them: plain values, and failures of known kinds."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_house import SMALL, needs_root, stream

from dockerd_py.config import Config, NetworkConfig
from dockerd_py.engine.engine import Engine
from dockerd_py.engine.model import CommitOptions
from dockerd_py.errors import NoSuchImage, PydockerdError

pytestmark = needs_root

Work = Callable[[Engine], Any]

ODD = ["base", "base:latest", "base:v2", "new", "", ":", "@", "sha256:", "a" * 300, "BASE", "x:y:z", "/", ".."]
TEXTS = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=12),
)


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Work], Any]]:
    """Runs a step with an engine that has an image named base."""
    directory: Path = tmp_path_factory.mktemp("engine")
    came_from = os.open(".", os.O_PATH)
    loop = asyncio.new_event_loop()
    config = Config(
        root=directory / "root", exec_root=directory / "run", storage_driver="vfs", pidfile=None,
        network=NetworkConfig(bridge="none"),
    )  # fmt: skip
    engine = loop.run_until_complete(Engine.open(config))
    loop.run_until_complete(engine.images.import_(stream(SMALL), repo="base"))
    yield lambda work: loop.run_until_complete(work(engine))
    loop.run_until_complete(engine.close())
    loop.close()
    os.fchdir(came_from)
    os.close(came_from)


async def _bytes(data: bytes) -> AsyncIterator[bytes]:
    yield data


def is_plain(value: Any) -> bool:
    if dataclasses.is_dataclass(value):
        return all(is_plain(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))


async def _saved(engine: Engine, ref: str) -> int:
    async with aclosing(await engine.images.save((ref,))) as pieces:
        return sum([len(piece) async for piece in pieces])


async def _listed(engine: Engine, ref: str) -> Any:
    found = [engine.images.get(ref), engine.images.history(ref), engine.graph.get(ref), engine.graph.history(ref)]
    return [*engine.images.list(), *engine.graph.list(), *found, engine.upkeep.shared_sizes()]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ref=TEXTS, name=TEXTS, tag=TEXTS, data=st.binary(max_size=600), kind=st.integers(0, 7), force=st.booleans())
def test_whatever_is_asked_the_answer_is_plain_or_a_failure_of_a_known_kind(
    inside: Callable[[Work], Any], ref: str, name: str, tag: str, data: bytes, kind: int, force: bool
) -> None:
    works: list[Work] = [
        lambda engine: _listed(engine, ref),
        lambda engine: _saved(engine, ref),
        lambda engine: engine.images.tag(ref, name, tag, force),
        lambda engine: engine.images.remove(ref, force=force, prune=force),
        lambda engine: engine.images.import_(_bytes(data), repo=name, tag=tag, message=ref, changes=(ref,)),
        lambda engine: engine.images.import_(_bytes(SMALL), repo=name, tag=tag, message=ref, author=ref, origin=ref),
        lambda engine: engine.images.load(_bytes(data)),
        lambda engine: engine.contents.commit(ref, CommitOptions(repo=name, tag=tag, comment=ref)),
    ]
    failure: PydockerdError | None = None
    try:
        assert is_plain(inside(works[kind]))
    except PydockerdError as error:
        failure = error
    if failure is not None:
        assert type(failure) is not PydockerdError
        assert failure.status < 500, repr(failure)
        assert str(failure)

    async def again(engine: Engine) -> None:
        if not any("base:latest" in image.tags for image in engine.images.list()):
            await engine.images.import_(stream(SMALL), repo="base")

    inside(again)


def test_an_image_that_another_removes_while_it_is_told_of_is_no_failure(inside: Callable[[Work], Any]) -> None:
    async def work(engine: Engine) -> None:
        async def importer(number: int) -> str:
            return await engine.images.import_(stream(SMALL), repo=f"short{number}")

        async def remover(number: int) -> None:
            for _ in range(10_000_000):
                with contextlib.suppress(NoSuchImage):
                    await engine.images.remove(f"short{number}")
                    return
                await asyncio.sleep(0)
            raise AssertionError

        done = await asyncio.gather(*(importer(number) for number in range(8)), *(remover(n) for n in range(8)))
        assert all(len(identity) == 64 for identity in done[:8])

    inside(work)
