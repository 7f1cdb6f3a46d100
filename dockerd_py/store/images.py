"""Images: configurations named by their sha256, on chains of layers, with tags that point at them.

All images of the driver in use are kept in memory, so that ``get`` and ``list`` never wait.  A change is committed
first and seen in memory afterwards; changes happen one at a time.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from dockerd_py.errors import BadParameter, Conflict, NoSuchImage
from dockerd_py.store import image_config, layer_ids, reference
from dockerd_py.store.archive.header import EMPTY_DIFF_ID
from dockerd_py.store.budget import Budget
from dockerd_py.store.db import Database
from dockerd_py.store.graph import Graph
from dockerd_py.store.holds import check_ready
from dockerd_py.store.image_index import ImageIndex, Name, StoredImage
from dockerd_py.store.layer_ids import Layer
from dockerd_py.store.layers import LayerStore
from dockerd_py.store.removal import Rules, Wanted, first_year, today
from dockerd_py.store.tasks import uninterrupted

_LATEST = 2**63 - 1

Users = Callable[[str], Sequence[tuple[str, bool]]]
"""From an image's id to the containers made from it: (id, whether it runs)."""


Describe = Callable[[int, Sequence[str], bool], bytes]
"""From the time, all diff ids and whether the last layer is new to an image's configuration."""


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
    names: tuple[Name, ...]  # (repository, tag), checked


class ImageStore:
    """The images of one driver.  ``load`` has to run before anything else."""

    def __init__(self, db: Database, layers: LayerStore, driver: str, unpack_limit: int = 0) -> None:
        self._db = db
        self._layers = layers
        self._driver = driver
        self.index = ImageIndex(layers, driver)
        self.graph = Graph(self.index, layers)
        self._unpack_limit = unpack_limit  # bytes that an import may have, uncompressed; 0: no limit
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read everything into memory."""
        images, tags = await self._db.run(self._read)
        self.index.load(images, tags)

    def list(self) -> builtins.list[StoredImage]:
        """All images, the newest first."""
        return sorted(self.index.images.values(), key=lambda image: (-image.created, image.id))

    def get(self, ref: str) -> StoredImage:
        """The image that ``ref`` names: a full id, ``[sha256:]`` and the beginning of one, or ``repo[:tag]``.

        A tag wins over an id that starts the same way.  The id may be a layer's, whole or from twelve digits on:
        that is an image without name or settings.  Raises NoSuchImage, AmbiguousId, BadParameter.
        """
        return self.index.get(ref)

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
        name: Name | None = None,
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
                parent_id=parent_id if self.index.by_id(parent_id) else "",
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
        """The configuration of an image or a layer: the bytes whose sha256 is its id.  Raises NoSuchImage."""

        def read(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                "SELECT config FROM images WHERE driver = ? AND id = ?", (self._driver, image_id),
            ).fetchone()
            return bytes(row["config"]) if row else None

        raw = await self._db.run(read)
        if raw is None:
            layer = self.index.by_id(image_id)
            if layer is None:
                raise NoSuchImage(image_id)
            raw = layer_ids.configuration(layer.diff_ids)
        return raw

    def named(self, ref: str) -> builtins.list[tuple[StoredImage, tuple[str, ...]]]:
        """The images that ``ref`` names, each with its names in it: for a bare repository all that it holds.

        No names where ``ref`` is an id.  Raises as ``get``.
        """
        image, name = self.index.resolve_repository(ref)
        if image is None:
            found: dict[str, list[str]] = {}
            for (repo, tag), image_id in sorted(self.index.tags.items()):
                if repo == name:
                    found.setdefault(image_id, []).append(f"{repo}:{tag}")
            return [(self.index.images[image_id], tuple(names)) for image_id, names in found.items()]
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
        force: bool | None = False,
        prune: bool = True,
        rules: Rules = Rules.TODAY,
    ) -> builtins.list[ImageChange]:
        """Take a name away and, with the last one, the image; parents that nothing names follow (``prune``).

        Raises NoSuchImage, AmbiguousId, BadParameter, and Conflict in Docker's words when containers or other images
        stand on it.
        """
        return await uninterrupted(self._remove(ref, users, force, prune, rules))

    # Below

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
                self.index.images.setdefault(image.id, image)
                for name in each.names:
                    self.index.retag(name, image.id)
            return [self.index.images[image.id] for image in images]

    async def _adopt(
        self,
        layer: Layer | None,
        record: Callable[[sqlite3.Connection, Layer | None], StoredImage],
        name: Name | None,
    ) -> StoredImage:
        async with self._changing:
            if layer is None:
                image = await self._db.run(lambda connection: record(connection, None))
            else:
                image = await self._layers.adopt(layer, record)
            self.index.images[image.id] = image
            if name:
                self.index.retag(name, image.id)
            return self.index.images[image.id]

    async def _tag(self, ref: str, name: Name, force: bool) -> StoredImage:
        async with self._changing:
            image = self.index.get(ref)
            owner = self.index.tags.get(name)
            if owner is not None and owner != image.id and not force:
                raise Conflict(
                    f"Conflict: Tag {name[1]} is already set to image {owner}, if you want to replace it, "
                    "please use -f option",
                )

            def record(connection: sqlite3.Connection) -> None:
                if image.id not in self.index.images:  # a layer: with a name, it is to be found in the database
                    assert image.chain_id is not None
                    check_ready(connection, self._driver, image.chain_id)
                    self._insert(connection, image, layer_ids.configuration(image.diff_ids))
                self._point(connection, name, image.id)

            await self._db.run(record)
            self.index.images.setdefault(image.id, image)
            self.index.retag(name, image.id)
            return self.index.images[image.id]

    async def _remove(
        self, ref: str, users: Users, force: bool | None, prune: bool, rules: Rules
    ) -> builtins.list[ImageChange]:
        index = self.index
        async with self._changing:
            image, name = index.resolve(ref)
            children = self.graph.children()
            local = any(other.parent_id == image.id for other in index.images.values())
            wanted = Wanted(
                ref=ref,
                image=image,
                name=name,
                names=tuple(each for each, owner in index.tags.items() if owner == image.id),
                is_recorded=image.id in index.images,
                is_layer=index.is_layer(image),
                has_children=local if rules is Rules.TODAY else children[image.id] > 0,
                containers=users(image.id),
                force=force,
            )
            plan = first_year(wanted) if rules is Rules.FIRST_YEAR else today(wanted)
            lineage = [] if rules is Rules.TODAY else self.graph.lineage(image)
            doomed = [image] if plan.delete else []
            if plan.delete and prune:
                doomed += self._prunable_parents(image, users, children)
            freed = await self._db.run(lambda connection: self._delete(connection, plan.untag, doomed))
            for each in plan.untag:
                del index.tags[each]
            if plan.untag:
                index.refresh(image.id)
            for gone in doomed:
                del index.images[gone.id]
        deleted = [gone.id for gone in doomed]
        if rules is not Rules.TODAY:
            deleted = self._gone(lineage, frozenset(deleted), users)
        await self._layers.drop(freed)
        return [
            *(ImageChange(untagged=f"{repo}:{tag}") for repo, tag in sorted(plan.untag)),
            *(ImageChange(deleted=each) for each in deleted),
        ]

    def _gone(
        self, lineage: Sequence[StoredImage], deleted: frozenset[str], users: Users
    ) -> builtins.list[str]:
        """Those of the lineage, from the top, that nobody sees any more."""
        left = self.graph.nodes()
        found = []
        for image in lineage:
            if image.id not in deleted and users(image.id):
                break  # a container keeps this layer and those below it
            if image.id not in left:
                found.append(image.id)
        return found

    def _prunable_parents(
        self, image: StoredImage, users: Users, children: Mapping[str, int]
    ) -> builtins.list[StoredImage]:
        """The parents, upwards, that have no name, no other child and no container."""
        parents: list[StoredImage] = []
        child = image
        while (parent := self.graph.parent(child)) is not None:
            if parent.tags or children[parent.id] > 1 or users(parent.id):
                break
            if parent.id in self.index.images:
                parents.append(parent)
            child = parent
        return parents

    def _insert(self, connection: sqlite3.Connection, image: StoredImage, raw: bytes) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO images (driver, id, config, created, parent_id, chain_id, size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self._driver, image.id, raw, image.created, image.parent_id or None, image.chain_id, image.size),
        )

    def _point(self, connection: sqlite3.Connection, name: Name, image_id: str) -> None:
        connection.execute(
            "INSERT INTO tags (driver, repo, tag, image_id) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (driver, repo, tag) DO UPDATE SET image_id = excluded.image_id",
            (self._driver, *name, image_id),
        )

    def _delete(
        self,
        connection: sqlite3.Connection,
        untag: Sequence[Name],
        doomed: Sequence[StoredImage],
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
    ) -> tuple[builtins.list[StoredImage], dict[Name, str]]:
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


def parse_name(repo: str, tag: str) -> Name | None:
    """The name to give, in its familiar form; None for no repository.  Raises BadParameter."""
    if not repo:
        if tag:
            raise BadParameter(f'tag "{tag}" was given without a repository')
        return None
    parsed = reference.parse(repo)
    if parsed.digest:
        raise BadParameter("refusing to create a tag with a digest reference")
    return parsed.repository, reference.check_tag(tag or parsed.tag)
