"""Images: importing, finding, naming and removing them."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from store_house import SMALL, layer_directories, member, needs_root, opened, rows, run, stream, tar

from dockerd_py.errors import AmbiguousId, BadArchive, BadParameter, Conflict, NoSuchImage
from dockerd_py.store import image_config
from dockerd_py.store.image_index import StoredImage
from dockerd_py.store.images import ImageChange, ImageStore
from dockerd_py.store.store import Store

pytestmark = needs_root


async def imported(store: Store, repo: str = "", data: bytes = SMALL, **options: Any) -> StoredImage:
    return await store.images.import_(stream(data), repo=repo, **options)


def unused(_image_id: str) -> list[tuple[str, bool]]:
    return []


def test_the_id_is_the_sha256_of_the_stored_configuration(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "base")
            (row,) = await rows(store, "images")
            assert hashlib.sha256(row["config"]).hexdigest() == image.id == row["id"]
            assert json.loads(row["config"]) == image.raw

    run(steps())


def test_an_import_records_what_was_said_about_it(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(
                store, "me/base", tag="v1", message="from scratch", author="Ann",
                changes=("ENV A=1 B='2 3'", 'CMD ["sh", "-l"]', "LABEL x=y"),
            )  # fmt: skip
            assert image.tags == ("me/base:v1",)
            assert image.raw["config"] == {"Env": ["A=1", "B=2 3"], "Cmd": ["sh", "-l"], "Labels": {"x": "y"}}
            assert (image.raw["author"], image.raw["comment"]) == ("Ann", "from scratch")
            assert image.raw["os"] == "linux"
            assert image.raw["history"][0]["comment"] == "from scratch"
            assert image.diff_ids == ("sha256:" + hashlib.sha256(SMALL).hexdigest(),)
            assert image_config.parse_time(image.raw["created"]) == image.created
            assert (image.size, image.driver) == (6, "overlay")
            other = await imported(store, origin="http://example.com/x.tar")
            assert other.raw["comment"] == "Imported from http://example.com/x.tar"
            assert other.tags == ()

    run(steps())


def test_an_image_is_found_by_every_spelling_of_its_name(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "base")
            await store.images.tag("base", "host:5000/repo", "t")
            for ref in ("base", "base:latest", "docker.io/library/base", image.id, "sha256:" + image.id, image.short_id,
                        "sha256:" + image.id[:10], "host:5000/repo:t"):  # fmt: skip
                assert store.images.get(ref).id == image.id
            assert store.images.get("base").tags == ("base:latest", "host:5000/repo:t")

    run(steps())


@pytest.mark.parametrize(
    ("ref", "message"),
    [("nothing", "No such image: nothing:latest"), ("base:other", "No such image: base:other"),
     ("host:5000/repo", "No such image: host:5000/repo:latest"), ("f" * 64, "No such image: " + "f" * 64),
     ("base@sha256:" + "1" * 64, "No such image: base@sha256:" + "1" * 64)],
)  # fmt: skip
def test_an_unknown_image_is_named_in_the_error(tmp_path: Path, ref: str, message: str) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            await imported(store, "base")
            with pytest.raises(NoSuchImage) as caught:
                store.images.get(ref)
            assert str(caught.value) == message

    run(steps())


def test_a_name_that_breaks_the_grammar_is_a_bad_parameter(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            for ref in ("Base", "a b", "", "../x"):
                with pytest.raises(BadParameter, match="invalid reference format"):
                    store.images.get(ref)

    run(steps())


def test_an_ambiguous_prefix_is_refused_and_a_longer_one_is_not(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            for number in range(17):  # two of seventeen begin with the same digit
                await imported(store, message=str(number))
            ids = [image.id for image in store.images.list()]
            digit = next(each for each in "0123456789abcdef" if sum(one.startswith(each) for one in ids) > 1)
            with pytest.raises(AmbiguousId, match=f"Multiple IDs found with provided prefix: {digit}"):
                store.images.get(digit)
            for one in ids:
                assert store.images.get(one[:20]).id == one

    run(steps())


def test_a_tag_wins_over_an_id_that_begins_the_same_way(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            first = await imported(store, message="first")
            second = await imported(store, first.id[:6], message="second")
            assert store.images.get(first.id[:6]).id == second.id
            assert store.images.get(first.id[:7]).id == first.id

    run(steps())


def test_images_are_listed_the_newest_first(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            ids = [(await imported(store, message=str(number))).id for number in range(3)]
            assert [image.id for image in store.images.list()] == ids[::-1]

    run(steps())


def test_importing_to_a_taken_name_moves_the_name(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            first = await imported(store, "base", message="first")
            second = await imported(store, "base", message="second")
            assert store.images.get("base").id == second.id
            assert store.images.get(first.id).tags == ()

    run(steps())


def test_two_imports_of_the_same_archive_share_one_layer(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            first = await imported(store, "a")
            second = await imported(store, "b", gzip.compress(SMALL))
            assert first.chain_id == second.chain_id
            assert len(layer_directories(store)) == 1
            await store.images.remove("a", unused)
            assert len(layer_directories(store)) == 1
            await store.images.remove("b", unused)
            assert layer_directories(store) == set()
            assert not await rows(store, "layers")

    run(steps())


def test_twenty_imports_at_once_of_the_same_layer_end_with_one(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            images = await asyncio.gather(*(imported(store, f"r{number}") for number in range(20)))
            assert len({image.chain_id for image in images}) == 1
            assert len(layer_directories(store)) == 1
            await asyncio.gather(*(store.images.remove(f"r{number}", unused) for number in range(20)))
            assert layer_directories(store) == set()

    run(steps())


def test_a_bad_archive_leaves_nothing_behind(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            for data in (b"", b"nonsense" * 1000, SMALL[:700], tar(member("ok"), member("../bad"))):
                with pytest.raises(BadArchive):
                    await imported(store, "base", data)
            assert store.images.list() == []
            assert layer_directories(store) == set()
            assert not await rows(store, "layers")
            await store.driver.trash.emptied()
            assert list(store.driver.trash.directory.iterdir()) == []

    run(steps())


def test_an_import_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            started = asyncio.Event()

            async def endless() -> Any:
                yield SMALL[:600]
                started.set()
                await asyncio.sleep(100)

            task = asyncio.create_task(store.images.import_(endless(), repo="base"))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert layer_directories(store) == set()
            assert not await rows(store, "layers")

    run(steps())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"repo": "Base"}, "must be lowercase"), ({"repo": "base", "tag": "a/b"}, "invalid tag format"),
     ({"tag": "t"}, "without a repository"), ({"changes": ("RUN x",)}, "RUN is not a valid change command"),
     ({"message": "\udcff"}, "not Unicode"), ({"repo": "a@sha256:" + "1" * 64}, "digest reference")],
)  # fmt: skip
def test_wrong_arguments_are_refused_before_the_archive_is_read(
    tmp_path: Path, options: dict[str, Any], message: str,
) -> None:
    async def untouched() -> Any:
        yield read()

    def read() -> bytes:
        raise AssertionError("the archive was read")

    async def steps() -> None:
        async with opened(tmp_path) as store:
            with pytest.raises(BadParameter, match=message):
                await store.images.import_(untouched(), **options)

    run(steps())


def test_a_tag_moves_by_force_only_and_that_is_the_default(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            first = await imported(store, "a", message="1")
            second = await imported(store, "b", message="2")
            with pytest.raises(Conflict, match=f"Conflict: Tag latest is already set to image {first.id}"):
                await store.images.tag("b", "a", force=False)
            assert (await store.images.tag("b", "a")).tags == ("a:latest", "b:latest")
            assert store.images.get("a").id == second.id
            assert store.images.get(first.id).tags == ()
            with pytest.raises(NoSuchImage):
                await store.images.tag("nothing", "c")

    run(steps())


def test_everything_is_there_again_after_reopening(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            await imported(store, "a", message="1")
            await store.images.tag("a", "b", "t")
            before = store.images.list()
        async with opened(tmp_path) as store:
            assert store.images.list() == before
            assert store.images.get("b:t").tags == ("a:latest", "b:t")

    run(steps())


def test_another_drivers_images_are_hidden_untouched_and_back(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "a")
        async with opened(tmp_path, "vfs") as store:
            assert store.images.list() == []
            await imported(store, "a")
            await store.images.remove("a", unused)
        async with opened(tmp_path, "") as store:
            assert store.driver.name == "vfs"
        async with opened(tmp_path, "overlay") as store:
            assert store.images.get("a") == image
            assert await store.layers.root_size(image.chain_id) == 6

    run(steps())


# Removing


def test_removing_the_last_name_removes_the_image(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "a")
            await store.images.tag("a", "b")
            assert await store.images.remove("a", unused) == [ImageChange(untagged="a:latest")]
            assert await store.images.remove("b", unused) == [
                ImageChange(untagged="b:latest"), ImageChange(deleted=image.id),
            ]  # fmt: skip
            assert store.images.list() == []
            assert layer_directories(store) == set()

    run(steps())


def test_removing_by_id_takes_the_one_name_with_it(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "a")
            assert await store.images.remove(image.short_id, unused) == [
                ImageChange(untagged="a:latest"), ImageChange(deleted=image.id),
            ]  # fmt: skip

    run(steps())


def test_removing_by_id_with_several_names_has_to_be_forced(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "a")
            await store.images.tag("a", "b")
            with pytest.raises(Conflict) as caught:
                await store.images.remove(image.id, unused)
            assert str(caught.value) == (
                f"conflict: unable to delete {image.short_id} (must be forced) - image is referenced in multiple "
                "repositories"
            )
            assert await store.images.remove(image.id, unused, force=True) == [
                ImageChange(untagged="a:latest"), ImageChange(untagged="b:latest"), ImageChange(deleted=image.id),
            ]  # fmt: skip

    run(steps())


USER = "c0ffee" * 10 + "cafe"


@pytest.mark.parametrize("running", [False, True])
def test_the_last_name_stays_while_a_container_uses_the_image(tmp_path: Path, running: bool) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "a")
            with pytest.raises(Conflict) as caught:
                await store.images.remove("a", lambda _: [(USER, running)])
            assert str(caught.value) == (
                'conflict: unable to remove repository reference "a" (must force) - container c0ffeec0ffee is using '
                f"its referenced image {image.short_id}"
            )
            assert store.images.get("a").id == image.id

    run(steps())


def test_by_id_a_stopped_container_can_be_overruled_and_a_running_one_cannot(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "a")
            with pytest.raises(Conflict) as caught:
                await store.images.remove(image.id, lambda _: [(USER, False)])
            assert str(caught.value) == (
                f"conflict: unable to delete {image.short_id} (must be forced) - image is being used by stopped "
                "container c0ffeec0ffee"
            )
            for force in (False, True):
                with pytest.raises(Conflict) as caught:
                    await store.images.remove(image.id, lambda _: [(USER, True)], force=force)
                assert str(caught.value) == (
                    f"conflict: unable to delete {image.short_id} (cannot be forced) - image is being used by running "
                    "container c0ffeec0ffee"
                )
            changes = await store.images.remove(image.id, lambda _: [(USER, False)], force=True)
            assert changes[-1] == ImageChange(deleted=image.id)

    run(steps())


def test_by_name_and_force_a_running_container_keeps_the_image_without_its_name(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await imported(store, "a")
            changes = await store.images.remove("a", lambda _: [(USER, True)], force=True)
            assert changes == [ImageChange(untagged="a:latest")]
            assert store.images.get(image.id).tags == ()

    run(steps())


def test_an_image_with_children_is_kept_and_goes_with_the_last_of_them(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            parent = await imported(store, "parent")
            await derive(store, parent, "child")
            with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
                await store.images.remove(parent.id, unused, force=True)
            assert await store.images.remove("parent", unused) == [ImageChange(untagged="parent:latest")]
            child = store.images.get("child")
            assert await store.images.remove("child", unused) == [
                ImageChange(untagged="child:latest"), ImageChange(deleted=child.id), ImageChange(deleted=parent.id),
            ]  # fmt: skip
            assert layer_directories(store) == set()

    run(steps())


async def derive(store: Store, parent: StoredImage, name: str) -> None:
    """Record a child on the parent's layers, as a commit of nothing would."""
    raw = image_config.encode({**parent.raw, "comment": "derived"})
    image_id = hashlib.sha256(raw).hexdigest()
    await store.db.run(
        lambda connection: [
            connection.execute(
                "INSERT INTO images VALUES ('overlay', ?, ?, ?, ?, ?, ?)",
                (image_id, raw, parent.created + 1, parent.id, parent.chain_id, parent.size),
            ),
            connection.execute("INSERT INTO tags VALUES ('overlay', ?, 'latest', ?)", (name, image_id)),
        ],
    )
    await store.images.load()


def test_two_removals_of_one_image_at_once_remove_it_once(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            await imported(store, "a")
            results = await asyncio.gather(
                *(store.images.remove("a", unused) for _ in range(2)), return_exceptions=True,
            )
            assert sorted(type(result).__name__ for result in results) == ["NoSuchImage", "list"]

    run(steps())


# Changes


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("CMD echo hi", {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        ('entrypoint ["/bin/x", "-v"]', {"Entrypoint": ["/bin/x", "-v"]}),
        ("ENV path /a b c", {"Env": ["path=/a b c"]}),
        ("ENV A=1 A=2", {"Env": ["A=2"]}),
        ('LABEL "com.x"="a b" y=', {"Labels": {"com.x": "a b", "y": ""}}),
        ("WORKDIR /a\nWORKDIR b/../c", {"WorkingDir": "/a/c"}),
        ("USER 1000:10", {"User": "1000:10"}),
        ("EXPOSE 80 53/udp 8000-8002", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {},
                                                         "8002/tcp": {}}}),
        ('VOLUME ["/data", "/with space"]', {"Volumes": {"/data": {}, "/with space": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("ONBUILD RUN make", {"OnBuild": ["RUN make"]}),
        ("# nothing\n\n", {}),
    ],
)  # fmt: skip
def test_a_change_becomes_configuration(line: str, expected: dict[str, Any]) -> None:
    assert image_config.apply_changes([line]) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FROM x", "FROM is not a valid change command"),
        ("CMD", "requires at least one argument"),
        ("ENV A", "two arguments"),
        ("ENV A=1 B", "can't find ="),
        ("LABEL a='", "No closing quotation"),
        ("EXPOSE web", "Invalid containerPort: web"),
        ("EXPOSE 0", "Invalid containerPort: 0"),
        ("EXPOSE 90-80", "Invalid containerPort"),
        ("USER a b", "exactly one"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
    ],
)
def test_a_change_that_is_wrong_is_refused(line: str, message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        image_config.apply_changes([line])


def test_the_same_values_give_the_same_bytes() -> None:
    values: dict[str, Any] = {"created": 1, "diff_ids": ["sha256:x"], "author": "", "comment": "", "machine": "aarch64"}
    one = image_config.build(**values, config={"A": 1, "B": 2})
    assert one == image_config.build(**values, config={"B": 2, "A": 1})
    assert json.loads(one)["architecture"] == "arm64"
    assert json.loads(one)["variant"] == "v8"


@pytest.mark.parametrize("moment", [0, 1, 1_700_000_000_120_000_000, -1_500_000_000])
def test_a_time_survives_being_written(moment: int) -> None:
    assert image_config.parse_time(image_config.format_time(moment)) == moment


def test_times_are_read_in_other_zones_and_nonsense_is_never() -> None:
    assert image_config.parse_time("2024-01-01T01:00:00+01:00") == image_config.parse_time("2024-01-01T00:00:00Z")
    assert image_config.parse_time("2024-13-01T00:00:00Z") == 0
    assert image_config.parse_time("yesterday") == 0


def test_finding_an_image_does_not_wait() -> None:
    assert not asyncio.iscoroutinefunction(ImageStore.get)
    assert not asyncio.iscoroutinefunction(ImageStore.list)
