"""Hostile archives met by the helpers: nothing lands outside, memory stays bounded, and all of it ends."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_archives as hostile
import pytest
from hostile_archives import COMPRESSED, FLOODS, MIB
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_house import SMALL, directory, member, needs_root, run, stream, symlink, tar

from dockerd_py.errors import BadArchive, BadParameter, PydockerdError, StoreError
from dockerd_py.store import contents, mounts
from dockerd_py.store.archive import entries as entries_module
from dockerd_py.store.archive.client import unpack
from dockerd_py.store.archive.entries import entries
from dockerd_py.store.archive.extract import APPLY, Extractor
from dockerd_py.store.archive.spooled import parse, spooled
from dockerd_py.store.archive.stream import TarStream
from dockerd_py.store.drivers.base import Whiteouts

pytestmark = needs_root

HERE = Path(__file__).parent
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


class Place:
    """A directory to unpack into, and one beside it that nothing may reach."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.outside = top / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")
        self.target = top / "target"
        self.keep = top / "keep"
        self.before = self.picture()
        self.empty()

    def empty(self) -> None:
        for path in (self.target, self.keep):
            subprocess.run(["rm", "-rf", path], check=True)
            path.mkdir()

    def picture(self) -> dict[str, Any]:
        found: dict[str, Any] = {"": sorted(os.listdir("/")), "/tmp/escape": os.path.lexists("/tmp/escape")}
        for path in (self.outside, *sorted(self.outside.rglob("*"))):
            info = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, info.st_ctime_ns, content)
        return found

    def assert_untouched(self) -> None:
        assert self.picture() == self.before
        assert {path.name for path in self.top.iterdir()} == {"outside", "target", "keep"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    one = Place(tmp_path)
    yield one
    one.empty()  # of trees that are too deep for who cleans up after us


# Bounded memory

_MEASURED = """
import asyncio, json, os, resource, sys
from pathlib import Path
from dockerd_py.errors import PydockerdError
from dockerd_py.store.archive.client import unpack
from dockerd_py.store.drivers.base import Whiteouts

async def source():
    while piece := os.read(0, 1 << 18):
        yield piece

async def work():
    try:
        await unpack(source(), Path(sys.argv[1]), Whiteouts.OVERLAY, keep=Path(sys.argv[2]), limit=int(sys.argv[3]))
    except PydockerdError as error:
        return f"{type(error).__name__}: {error}"
    return ""

said = asyncio.run(work())
print(json.dumps([said, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]))
"""


def measured(pieces: Iterator[bytes], place: Place, limit: int = 0) -> tuple[str, int]:
    """(what is said of the archive, the most memory that the helper has had, in bytes)."""
    command = [sys.executable, "-c", _MEASURED, place.target, place.keep, str(limit)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE.parents[1]
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            for piece in pieces:
                process.stdin.write(piece)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        said, peak = json.loads(process.stdout.read())
    return said, peak


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_takes_no_memory_and_what_is_too_much_is_refused(place: Place, name: str) -> None:
    make, expected = FLOODS[name]
    said, peak = measured(make(), place)
    assert peak < 160 * MIB
    assert len(said) < 6000
    if expected:
        assert said.startswith("BadArchive: ")
        assert any(words in said.lower() for words in expected.split("|")), said
    else:
        assert said == "" or said.startswith("BadArchive: ")
    place.assert_untouched()


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("bomb", [hostile.swelling, hostile.swelling_behind_the_end])
def test_a_bomb_stops_at_the_limit(place: Place, kind: str, bomb: Callable[[int], Iterator[bytes]]) -> None:
    data = COMPRESSED[kind](bomb(64 * MIB))
    assert kind == "plain" or len(data) < MIB
    said, peak = measured(iter([data]), place, limit=8 * MIB)
    assert said.startswith("BadArchive: cannot unpack the archive: ")
    assert said.endswith(f"it is larger than the {8 * MIB} bytes that the daemon's --unpack-limit leaves for it")
    assert peak < 128 * MIB
    assert sum(path.stat().st_size for path in place.target.rglob("*")) <= 8 * MIB


def test_what_fits_the_limit_to_the_byte_is_taken(place: Place) -> None:
    run(unpack(stream(SMALL), place.target, Whiteouts.OVERLAY, limit=len(SMALL)))
    with pytest.raises(BadArchive, match="--unpack-limit"):
        run(unpack(stream(SMALL), place.target, Whiteouts.OVERLAY, limit=len(SMALL) - 1))


@pytest.mark.parametrize("make", [hostile.xz_with_a_dictionary_of_4_gib, hostile.zstd_with_a_window_of_2_gib])
def test_a_compression_that_asks_for_gigabytes_of_memory_is_refused(place: Place, make: Callable[[], bytes]) -> None:
    if make is hostile.zstd_with_a_window_of_2_gib:
        pytest.importorskip("zstandard")
    said, peak = measured(iter([make()]), place)
    assert "needs too much memory to decompress" in said
    assert peak < 128 * MIB


def test_the_last_of_the_disk_is_left_to_others(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounts.mount("tmpfs", small, "tmpfs", data="size=400m")
    try:

        async def swelling() -> AsyncIterator[bytes]:
            for piece in hostile.swelling(398 * MIB, b"x"):  # zeros would become a hole
                yield piece

        with pytest.raises(StoreError, match="no space left on the disk"):
            run(unpack(swelling(), small, Whiteouts.OVERLAY))
        left = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        assert 8 * MIB < left < 21 * MIB
    finally:
        mounts.unmount(small)


def test_files_without_contents_use_up_no_file_system(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounts.mount("tmpfs", small, "tmpfs", data="size=64m,nr_inodes=10000")
    try:
        flood = b"".join(hostile.empty(f"f{number}") for number in range(12_000))
        with pytest.raises(StoreError, match="no space left on the disk"):
            run(unpack(stream(flood, MIB), small, Whiteouts.OVERLAY))
        assert os.statvfs(small).f_favail > 0
    finally:
        mounts.unmount(small)


def test_an_archive_of_too_many_entries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_module, "MAX_ENTRIES", 5)

    def count(number: int) -> int:
        data = tar(*(member(f"f{index}") for index in range(number)))
        return len(list(entries(TarStream(io.BytesIO(data)))))

    assert count(5) == 5
    with pytest.raises(BadArchive, match="more than 5 entries"):
        count(6)


# What the helpers say

_FAILING = """
import sys
from dockerd_py.errors import BadArchive
from dockerd_py.store.archive.program import begin, run

def work():
    if sys.argv[1] == "2":
        begin({})
    raise BadArchive("\\U0001f600" * 100_000)

run(work)
"""


@pytest.mark.parametrize("fd", [1, 2])
def test_a_helper_that_has_much_to_complain_of_ends_before_anybody_reads_it(fd: int) -> None:
    command = [sys.executable, "-c", _FAILING, str(fd)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=HERE.parents[1]
    ) as process:
        try:
            process.wait(60)
        finally:
            process.kill()
        said = process.communicate()[fd - 1]
    answer = json.loads(said)
    assert answer["kind"] == "BadArchive"
    assert answer["error"].startswith("\U0001f600" * 1000)


# Descriptions of images


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" + b"[]," * 200_000 + b"0]", "too many values"),
        (b'{"a":' * 100_000, "too many values"),
        (b'{"a":' * 200 + b"0" + b"}" * 200, "nested too deeply"),
        (b"[" * 60 + b"]" * 60, "nested too deeply"),
        (b"[" * 20_000, "no JSON"),
        (b"[NaN]", "no JSON"),
        (b"[-Infinity]", "no JSON"),
        (b"[" + b"9" * 100_000 + b"]", "no JSON"),
        (b"\xff", "no JSON"),
        ('["a"]'.encode("utf-16"), "no JSON"),
        (b'["\xed\xa0\x80"]', "no JSON"),
        (b'["\\ud800"]', "not Unicode"),
        (b'["\\u0000"]', "zero bytes"),
        (b"", "no JSON"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_json_that_would_be_a_burden_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(BadArchive, match=said):
        parse(text, "manifest.json")


def test_json_of_the_usual_kind_is_read() -> None:
    assert parse(b'{"a": [1, 2.5, "x", null, {"b": {}}]}', "x") == {"a": [1, 2.5, "x", None, {"b": {}}]}


# Whatever comes


def failed_well(error: PydockerdError) -> None:
    """A refusal is a sentence; an answer that the helper did not foresee would show its traceback."""
    assert "Traceback" not in str(error), error
    assert not isinstance(error, StoreError) or "no space left" in str(error), error


@FUZZ
@given(data=st.data())
def test_no_archive_leaves_the_directory_that_it_is_unpacked_to(place: Place, data: st.DataObject) -> None:
    archive = data.draw(hostile.archives(str(place.outside)))
    place.empty()
    whiteouts = data.draw(st.sampled_from([Whiteouts.OVERLAY, Whiteouts.AUFS, Whiteouts.APPLY]))
    try:
        run(unpack(stream(archive, 700), place.target, whiteouts, keep=place.keep, limit=MIB))
    except PydockerdError as error:
        failed_well(error)
    place.assert_untouched()


@FUZZ
@given(data=st.data())
def test_no_archive_leaves_the_root_that_it_is_copied_into(place: Place, data: st.DataObject) -> None:
    archive = data.draw(hostile.archives(str(place.outside)))
    place.empty()
    (place.target / "d").mkdir()
    (place.target / "link").symlink_to(data.draw(st.sampled_from([str(place.outside), "../outside", "d", "/"])))
    (place.target / "d/a").symlink_to(f"{place.outside}/secret")
    into = data.draw(st.sampled_from(["/", "/d", "/link", "/../outside"]))

    async def copy() -> None:
        await contents.copy_in(
            contents.Root(place.target, ()), into, stream(archive, 700), limit=MIB,
            no_overwrite=data.draw(st.booleans()), owner=data.draw(st.sampled_from([None, (1000, 1000)])),
        )  # fmt: skip

    try:
        run(copy())
    except PydockerdError as error:
        failed_well(error)
    place.assert_untouched()
    for top, directories, files in os.walk(place.target):
        for name in (*directories, *files):
            info = os.lstat(os.path.join(top, name))
            assert not stat.S_ISBLK(info.st_mode)
            assert not stat.S_ISCHR(info.st_mode) or info.st_rdev == os.makedev(1, 3)


@settings(FUZZ, max_examples=20)
@given(data=st.data())
def test_no_archive_of_images_leaves_its_temporary_directory(place: Place, data: st.DataObject) -> None:
    archive = data.draw(hostile.archives(str(place.outside)))
    place.empty()

    async def read() -> None:
        async with spooled(stream(archive, 700), place.target, limit=MIB) as found:
            for name in found.names():
                with contextlib.suppress(BadArchive):
                    assert b"secret" not in await found.read(name)

    try:
        run(read())
    except PydockerdError as error:
        failed_well(error)
    place.assert_untouched()
    assert list(place.target.iterdir()) == []


def test_a_link_that_changes_while_an_archive_is_copied_in_leads_nowhere_else(place: Place) -> None:
    """The container renames a directory and a link that leads out into each other's place, again and again."""
    real, link = place.target / "real", place.target / "link"
    real.mkdir()
    link.symlink_to(place.outside)
    swapping = True

    async def swap() -> None:
        while swapping:
            for _ in range(50):
                exchange(real, link)
            await asyncio.sleep(0)

    async def copy() -> None:
        nonlocal swapping
        data = tar(*(member(f"real/f{number}", data=b"x") for number in range(300)))
        swapper = asyncio.create_task(swap())
        try:
            for _ in range(3):
                # With a link there, the name leads to a directory that the root does not have.
                with contextlib.suppress(BadArchive, BadParameter, PydockerdError):
                    await contents.copy_in(contents.Root(place.target, ()), "/", slowly(data))
        finally:
            swapping = False
            await swapper

    run(copy())
    place.assert_untouched()


async def slowly(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 4096):
        yield data[at : at + 4096]
        await asyncio.sleep(0)


def exchange(one: Path, other: Path) -> None:
    """renameat2(2) with RENAME_EXCHANGE."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)


def test_a_tree_deeper_than_paths_are_long_is_refused(place: Place) -> None:
    parts: list[str] = []
    for number in range(200):
        parts.append("d" * 30 + str(number))
    data = tar(directory("d"), member("/".join(parts)), symlink("s", "x"))
    with pytest.raises(BadArchive, match="too long"):
        run(unpack(stream(data), place.target, Whiteouts.OVERLAY))


def test_a_directory_is_looked_through_once_however_often_it_is_said_to_be_opaque(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [member(f"d/f{number}") for number in range(20)]
    opaque = [member("d/.wh..wh..opq"), member(".wh.d")] * 50
    (place.target / "d").mkdir()
    (place.target / "d/old").touch()
    looked = []
    scandir = os.scandir
    monkeypatch.chdir(place.target)
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(path) or scandir(path))
    Extractor(APPLY).extract(TarStream(io.BytesIO(tar(directory("d"), *files, *opaque))))
    assert looked == ["d"]
    assert len(os.listdir("d")) == 20
