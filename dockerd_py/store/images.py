"""Images: configurations named by their sha256, on chains of layers, with tags that point at them.

All images of the driver in use are kept in memory, so that ``get`` and ``list`` never wait.  A change is committed
first and seen in memory afterwards; changes happen one at a time.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dockerd_py.errors import AmbiguousId, BadParameter, Conflict, NoSuchImage
from dockerd_py.store import image_config, reference
from dockerd_py.store.archive.layertar import EMPTY_DIFF_ID
from dockerd_py.store.db import Database
from dockerd_py.store.holds import check_ready
from dockerd_py.store.layers import Budget, Layer, LayerStore
from dockerd_py.store.tasks import uninterrupted

_LATEST = 2**63 - 1

Users = Callable[[str], Sequence[tuple[str, bool]]]
"""From an image's id to the containers made from it: (id, whether it runs)."""


Describe = Callable[[int, Sequence[str], bool], bytes]
"""From the time, all diff ids and whether the last layer is new to an image's configuration."""


@dataclass(frozen=True)
class StoredImage:
    """One image with its names.  ``raw`` is its whole configuration, parsed; treat it as constant."""

    id: str  # 64 hex digits
    parent_id: str  # "" for none
    created: int
    size: int  # bytes of all its layers
    tags: tuple[str, ...]  # "repo:tag", sorted
    chain_id: str | None  # the topmost layer; None for an image without layers
    raw: Mapping[str, Any]
    driver: str

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(self.raw["rootfs"]["diff_ids"])


@dataclass(frozen=True)
class ImageChange:
    """One line of what a removal did: either a name ("repo:tag") or an id."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True)
class NewImage:
    """An image whose layers are in the store."""

    raw: bytes  # its configuration
    chain_id: str | None
    names: tuple[tuple[str, str], ...]  # (repository, tag), checked


class ImageStore:
    """The images of one driver.  ``load`` has to run before anything else."""

    def __init__(self, db: Database, layers: LayerStore, driver: str, unpack_limit: int = 0) -> None:
        self._db = db
        self._layers = layers
        self._driver = driver
        self._unpack_limit = unpack_limit  # bytes that an import may have, uncompressed; 0: no limit
        self._images: dict[str, StoredImage] = {}
        self._tags: dict[tuple[str, str], str] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read everything into memory."""
        images, tags = await self._db.run(self._read)
        self._images = {image.id: image for image in images}
        self._tags = tags
        for image_id in set(tags.values()):
            self._refresh(image_id)

    def list(self) -> builtins.list[StoredImage]:
        """All images, the newest first."""
        return sorted(self._images.values(), key=lambda image: (-image.created, image.id))

    def get(self, ref: str) -> StoredImage:
        """The image that ``ref`` names: a full id, ``[sha256:]`` and the beginning of one, or ``repo[:tag]``.

        A tag wins over an id that starts the same way.  Raises NoSuchImage, AmbiguousId, BadParameter.
        """
        return self._resolve(ref)[0]

    async def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        repo: str = "",
        tag: str = "",
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        origin: str = "-",
        progress: Callable[[int], None] | None = None,
    ) -> StoredImage:
        """Make an image of one layer from a root filesystem's tar.

        ``repo`` may hold the tag itself; "" leaves the image without a name.  ``progress`` is told the bytes taken.
        Raises BadParameter, BadArchive, StoreError, and what ``source`` raises; nothing is left then.
        """
        name = parse_name(repo, tag)
        config = image_config.apply_changes(changes)
        created = time.time_ns()
        comment = message or f"Imported from {origin}"
        image_config.encode({"author": author, "comment": comment, "config": config})  # before all the work

        def record(connection: sqlite3.Connection, layer: Layer | None) -> StoredImage:
            assert layer is not None
            raw = image_config.build(
                created=created, diff_ids=[layer.diff_id], config=config, author=author, comment=comment,
            )
            image = StoredImage(
                id=hashlib.sha256(raw).hexdigest(),
                parent_id="",
                created=created,
                size=layer.size,
                tags=(),
                chain_id=layer.chain_id,
                raw=json.loads(raw),
                driver=self._driver,
            )
            self._insert(connection, image, raw)
            if name:
                self._point(connection, name, image.id)
            return image

        budget = Budget.of(self._unpack_limit)
        async with self._layers.unpacked(source, progress=progress, budget=budget) as layer:
            return await uninterrupted(self._adopt(layer, record, name))

    async def derive(
        self,
        source: AsyncIterator[bytes],
        describe: Describe,
        *,
        parent_id: str,
        chain: str | None,
        name: tuple[str, str] | None = None,
    ) -> StoredImage:
        """Make an image of one more layer, whose tar is ``source``, on ``chain``.

        ``parent_id`` is the image that the chain belongs to; it may be gone.  ``describe`` is given all diff ids,
        the lowest first, and whether the new layer has anything in it, and returns the configuration.  A layer with
        nothing in it is left out.  Raises BadParameter (too many layers), BadArchive, StoreError, and what ``source``
        raises; nothing is left then.
        """
        below = [layer.diff_id for layer in reversed(self._layers.chain(chain))]
        created = time.time_ns()

        def record(connection: sqlite3.Connection, layer: Layer | None) -> StoredImage:
            diff_ids = [*below, layer.diff_id] if layer else below
            raw = describe(created, diff_ids, layer is not None)
            image = StoredImage(
                id=hashlib.sha256(raw).hexdigest(),
                parent_id=parent_id if parent_id in self._images else "",
                created=created,
                size=sum(one.size for one in self._layers.chain(chain)) + (layer.size if layer else 0),
                tags=(),
                chain_id=layer.chain_id if layer else chain,
                raw=json.loads(raw),
                driver=self._driver,
            )
            self._insert(connection, image, raw)
            if name:
                self._point(connection, name, image.id)
            return image

        async with self._layers.unpacked(source, parent=chain) as layer:
            new = None if layer.diff_id == EMPTY_DIFF_ID else layer
            return await uninterrupted(self._adopt(new, record, name))

    async def add(self, images: Sequence[NewImage]) -> builtins.list[StoredImage]:
        """Record images, all or none, and point their names at them.  One that is there already gets the names.

        The layers have to be held.  Raises Conflict, StoreError.
        """
        return await uninterrupted(self._add(images))

    async def configuration(self, image_id: str) -> bytes:
        """An image's configuration: the bytes whose sha256 is its id.  Raises NoSuchImage."""

        def read(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                "SELECT config FROM images WHERE driver = ? AND id = ?", (self._driver, image_id),
            ).fetchone()
            return bytes(row["config"]) if row else None

        raw = await self._db.run(read)
        if raw is None:
            raise NoSuchImage(image_id)
        return raw

    def named(self, ref: str) -> builtins.list[tuple[StoredImage, tuple[str, ...]]]:
        """The images that ``ref`` names, each with its names in it: for a bare repository all that it holds.

        No names where ``ref`` is an id.  Raises as ``get``.
        """
        image, name = self._resolve_repository(ref)
        if image is None:
            found: dict[str, list[str]] = {}
            for (repo, tag), image_id in sorted(self._tags.items()):
                if repo == name:
                    found.setdefault(image_id, []).append(f"{repo}:{tag}")
            return [(self._images[image_id], tuple(names)) for image_id, names in found.items()]
        return [(image, (name,) if name else ())]

    async def tag(self, ref: str, repo: str, tag: str = "", *, force: bool = True) -> StoredImage:
        """Give the image another name.  Raises NoSuchImage, BadParameter; Conflict when the name belongs to another
        image and ``force`` is not set (the first year's rule; today's API always sets it).
        """
        name = parse_name(repo, tag)
        if not name:
            raise BadParameter("repository name is required")
        return await uninterrupted(self._tag(ref, name, force))

    async def remove(
        self,
        ref: str,
        users: Users,
        *,
        force: bool = False,
        prune: bool = True,
    ) -> builtins.list[ImageChange]:
        """Take a name away and, with the last one, the image; parents that nothing names follow (``prune``).

        Raises NoSuchImage, AmbiguousId, BadParameter, and Conflict in Docker's words when containers or other images
        stand on it.
        """
        return await uninterrupted(self._remove(ref, users, force, prune))

    # Below

    def _resolve(self, ref: str) -> tuple[StoredImage, tuple[str, str] | None]:
        """The image, and the name if it was found by one."""
        if reference.is_full_id(ref):
            image = self._images.get(ref.removeprefix("sha256:"))
            if image is None:
                raise NoSuchImage(ref)
            return image, None
        parsed: reference.Reference | None = None
        wrong: BadParameter | None = None
        try:
            parsed = reference.parse(ref)
        except BadParameter as error:
            wrong = error
        if parsed is not None and not parsed.digest:
            name = (parsed.repository, parsed.tag_or_default)
            if name in self._tags:
                return self._images[self._tags[name]], name
        prefix = reference.id_prefix(ref)
        if parsed is not None and not parsed.digest and prefix is None and (tag := reference.id_prefix(parsed.tag)):
            # "repository:beginning of an id", as the first year allowed: an image with a name in that repository.
            inside = {self._tags[name] for name in self._tags if name[0] == parsed.repository}
            found = [self._images[each] for each in inside if each.startswith(tag)]
            if len(found) > 1:
                raise AmbiguousId(ref)
            if found:
                return found[0], None
        if prefix:
            found = [image for image in self._images.values() if image.id.startswith(prefix)]
            if len(found) > 1:
                raise AmbiguousId(ref)
            if found:
                return found[0], None
        if wrong is not None:
            raise wrong
        assert parsed is not None
        raise NoSuchImage(str(parsed) if parsed.tag or parsed.digest else f"{parsed}:{reference.DEFAULT_TAG}")

    def _resolve_repository(self, ref: str) -> tuple[StoredImage | None, str]:
        """(None, repository) for a bare name of one that has images, else an image and its name, "" for none."""
        with contextlib.suppress(BadParameter):
            parsed = reference.parse(ref)
            if not (parsed.tag or parsed.digest) and any(repo == parsed.repository for repo, _ in self._tags):
                return None, parsed.repository
        image, name = self._resolve(ref)
        return image, ":".join(name) if name else ""

    async def _add(self, new: Sequence[NewImage]) -> builtins.list[StoredImage]:
        def record(connection: sqlite3.Connection) -> builtins.list[StoredImage]:
            images = []
            for each in new:
                if each.chain_id is not None:
                    check_ready(connection, self._driver, each.chain_id)
                raw = json.loads(each.raw)
                image = StoredImage(
                    id=hashlib.sha256(each.raw).hexdigest(),
                    parent_id="",
                    created=min(max(image_config.parse_time(raw.get("created") or ""), 0), _LATEST),
                    size=sum(layer.size for layer in self._layers.chain(each.chain_id)),
                    tags=(),
                    chain_id=each.chain_id,
                    raw=raw,
                    driver=self._driver,
                )
                self._insert(connection, image, each.raw)
                for name in each.names:
                    self._point(connection, name, image.id)
                images.append(image)
            return images

        async with self._changing:
            images = await self._db.run(record)
            for image, each in zip(images, new, strict=True):
                self._images.setdefault(image.id, image)
                for name in each.names:
                    self._retag(name, image.id)
            return [self._images[image.id] for image in images]

    async def _adopt(
        self,
        layer: Layer | None,
        record: Callable[[sqlite3.Connection, Layer | None], StoredImage],
        name: tuple[str, str] | None,
    ) -> StoredImage:
        async with self._changing:
            if layer is None:
                image = await self._db.run(lambda connection: record(connection, None))
            else:
                image = await self._layers.adopt(layer, record)
            self._images[image.id] = image
            if name:
                self._retag(name, image.id)
            return self._images[image.id]

    async def _tag(self, ref: str, name: tuple[str, str], force: bool) -> StoredImage:
        async with self._changing:
            image = self.get(ref)
            owner = self._tags.get(name)
            if owner is not None and owner != image.id and not force:
                raise Conflict(
                    f"Conflict: Tag {name[1]} is already set to image {owner}, if you want to replace it, "
                    "please use -f option",
                )
            await self._db.run(lambda connection: self._point(connection, name, image.id))
            self._retag(name, image.id)
            return self._images[image.id]

    async def _remove(self, ref: str, users: Users, force: bool, prune: bool) -> builtins.list[ImageChange]:
        async with self._changing:
            image, name = self._resolve(ref)
            if name is None:
                self._check_removal_by_id(image, users, force)
                untag = [each for each, owner in self._tags.items() if owner == image.id]
                delete = True
            else:
                containers = users(image.id)
                if len(image.tags) == 1 and containers and not force:
                    raise Conflict(
                        f'conflict: unable to remove repository reference "{ref}" (must force) - container '
                        f"{containers[0][0][:12]} is using its referenced image {image.short_id}",
                    )
                untag = [name]
                # A name that goes while the image is held elsewhere leaves the image behind, nameless.
                held = any(running for _, running in containers) or self._has_children(image)
                delete = len(image.tags) == 1 and not held
            doomed = [image] if delete else []
            if delete and prune:
                doomed += self._prunable_parents(image, users)
            freed = await self._db.run(lambda connection: self._delete(connection, untag, doomed))
            for each in untag:
                del self._tags[each]
            self._refresh(image.id)
            for gone in doomed:
                del self._images[gone.id]
        await self._layers.drop(freed)
        return [
            *(ImageChange(untagged=f"{repo}:{tag}") for repo, tag in sorted(untag)),
            *(ImageChange(deleted=gone.id) for gone in doomed),
        ]

    def _check_removal_by_id(self, image: StoredImage, users: Users, force: bool) -> None:
        containers = users(image.id)
        for container, running in containers:
            if running:
                raise Conflict(
                    f"conflict: unable to delete {image.short_id} (cannot be forced) - image is being used by "
                    f"running container {container[:12]}",
                )
        if self._has_children(image):
            raise Conflict(
                f"conflict: unable to delete {image.short_id} (cannot be forced) - image has dependent child images",
            )
        if force:
            return
        if len(image.tags) > 1:
            raise Conflict(
                f"conflict: unable to delete {image.short_id} (must be forced) - image is referenced in multiple "
                "repositories",
            )
        for container, _ in containers:
            raise Conflict(
                f"conflict: unable to delete {image.short_id} (must be forced) - image is being used by stopped "
                f"container {container[:12]}",
            )

    def _has_children(self, image: StoredImage) -> bool:
        return any(other.parent_id == image.id for other in self._images.values())

    def _prunable_parents(self, image: StoredImage, users: Users) -> builtins.list[StoredImage]:
        """The parents, upwards, that have no name, no other child and no container."""
        parents: list[StoredImage] = []
        child = image
        while (parent := self._images.get(child.parent_id)) is not None:
            others = any(
                other.parent_id == parent.id and other.id != child.id for other in self._images.values()
            )
            if parent.tags or others or users(parent.id):
                break
            parents.append(parent)
            child = parent
        return parents

    def _insert(self, connection: sqlite3.Connection, image: StoredImage, raw: bytes) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO images (driver, id, config, created, parent_id, chain_id, size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self._driver, image.id, raw, image.created, image.parent_id or None, image.chain_id, image.size),
        )

    def _point(self, connection: sqlite3.Connection, name: tuple[str, str], image_id: str) -> None:
        connection.execute(
            "INSERT INTO tags (driver, repo, tag, image_id) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (driver, repo, tag) DO UPDATE SET image_id = excluded.image_id",
            (self._driver, *name, image_id),
        )

    def _delete(
        self,
        connection: sqlite3.Connection,
        untag: builtins.list[tuple[str, str]],
        doomed: builtins.list[StoredImage],
    ) -> builtins.list[str]:
        for repo, tag in untag:
            connection.execute(
                "DELETE FROM tags WHERE driver = ? AND repo = ? AND tag = ?", (self._driver, repo, tag),
            )
        freed: list[str] = []
        for image in doomed:
            connection.execute("DELETE FROM images WHERE driver = ? AND id = ?", (self._driver, image.id))
            freed += self._layers.release(connection, image.chain_id)
        return freed

    def _read(
        self,
        connection: sqlite3.Connection,
    ) -> tuple[builtins.list[StoredImage], dict[tuple[str, str], str]]:
        images = [
            StoredImage(
                id=row["id"],
                parent_id=row["parent_id"] or "",
                created=row["created"],
                size=row["size"],
                tags=(),
                chain_id=row["chain_id"],
                raw=json.loads(row["config"]),
                driver=self._driver,
            )
            for row in connection.execute("SELECT * FROM images WHERE driver = ?", (self._driver,))
        ]
        tags = connection.execute("SELECT repo, tag, image_id FROM tags WHERE driver = ?", (self._driver,))
        return images, {(repo, tag): image_id for repo, tag, image_id in tags}

    def _retag(self, name: tuple[str, str], image_id: str) -> None:
        before = self._tags.get(name)
        self._tags[name] = image_id
        self._refresh(image_id)
        if before is not None and before != image_id:
            self._refresh(before)

    def _refresh(self, image_id: str) -> None:
        """Bring an image's tuple of names up to date."""
        tags = sorted(f"{repo}:{tag}" for (repo, tag), owner in self._tags.items() if owner == image_id)
        self._images[image_id] = replace(self._images[image_id], tags=tuple(tags))


def parse_name(repo: str, tag: str) -> tuple[str, str] | None:
    """The name to give, in its familiar form; None for no repository.  Raises BadParameter."""
    if not repo:
        if tag:
            raise BadParameter(f'tag "{tag}" was given without a repository')
        return None
    parsed = reference.parse(repo)
    if parsed.digest:
        raise BadParameter("refusing to create a tag with a digest reference")
    return parsed.repository, reference.check_tag(tag or parsed.tag)
