"""What is in containers' root filesystems: what they changed, images made of it, files copied out and in.

Whatever looks at a container's files is a helper process that the kernel confines to them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from dockerd_py.engine import settings
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.images import Images
from dockerd_py.engine.model import Change, ChangeKind, CommitOptions, ContainerConfig
from dockerd_py.engine.record import Record
from dockerd_py.errors import Conflict, NoSuchContainer, NoSuchImage, NotSupported
from dockerd_py.store import contents, image_config
from dockerd_py.store.images import parse_name
from dockerd_py.store.store import Store
from dockerd_py.store.tasks import uninterrupted
from dockerd_py.units.base import Units
from dockerd_py.version import VERSION

# Keys of an image's settings that say how its container was run, not how the next ones are to be.
_ONLY_THE_CONTAINERS = frozenset(
    ("Hostname", "Domainname", "Image", "Tty", "OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr")
)


class Contents:
    def __init__(self, store: Store, containers: Containers, images: Images, units: Units, events: EventLog) -> None:
        self._store = store
        self._containers = containers
        self._images = images
        self._units = units
        self._events = events

    async def changes(self, ref: str) -> list[Change]:
        """What a container changed against its image, sorted by path.  Raises NoSuchContainer, Conflict."""
        async with self._kept(ref) as record:
            found = await contents.changes(self._store.layers.view_rw(record.id))
        return sorted(Change(path, ChangeKind(kind)) for path, kind in found)

    async def commit(self, ref: str, options: CommitOptions) -> str:
        """Make an image of a container as it is now, and return its id.

        Raises NoSuchContainer, BadParameter (the name, the changes, too many layers), Conflict when it is being
        removed, and NotSupported when it runs and cannot be paused.
        """
        name = parse_name(options.repo, options.tag)
        wanted = settings.config_from_image(
            image_config.apply_changes(options.changes, settings.config_to_image(options.config))
        )
        async with self._kept(ref) as record:
            parent = self._raw_image(record.image_id)
            config = _config_of_image(wanted, record.config, parent.get("config") or {}, merge=options.merge)

            def describe(created: int, diff_ids: Sequence[str], adds_layer: bool) -> bytes:
                return image_config.derive(
                    parent,
                    created=created,
                    diff_ids=diff_ids,
                    config=config,
                    author=options.author,
                    comment=options.comment,
                    created_by=" ".join(record.config.cmd),
                    adds_layer=adds_layer,
                    container=record.id,
                    container_config=settings.config_to_image(record.config),
                    version=VERSION,
                )

            layers = self._store.layers
            layers.check_depth(layers.parent_chain(record.id))  # before anything is stopped for it
            async with self._paused(record, options.pause), contents.layer(layers.view_rw(record.id)) as tar:
                image = await self._store.images.derive(
                    tar, describe, parent_id=record.image_id, chain=layers.parent_chain(record.id), name=name
                )
        reference = f"{name[0]}:{name[1]}" if name else ""
        attributes = record.attributes(comment=options.comment, imageID=f"sha256:{image.id}", imageRef=reference)
        self._events.publish("container", "commit", record.id, attributes)
        return image.id

    # Below

    @asynccontextmanager
    async def _kept(self, ref: str) -> AsyncIterator[Record]:
        """A container that is not removed before the block ends."""
        record = self._containers.record(ref)
        if record.removing:
            raise Conflict(f"removal of container {record.name} is already in progress")
        async with record.content_lock:
            if record.gone:
                raise NoSuchContainer(ref)
            yield record

    @asynccontextmanager
    async def _paused(self, record: Record, wanted: bool) -> AsyncIterator[None]:
        if not wanted or not record.state.running:
            yield
            return
        try:
            await uninterrupted(self._units.freeze(record.scope))
        except NotSupported as error:
            raise NotSupported(f"{error}; commit with pause=false to take the container's files as it runs") from error
        try:
            yield
        finally:
            await uninterrupted(self._units.thaw(record.scope))

    def _raw_image(self, image_id: str) -> Mapping[str, Any]:
        """An image's configuration; {} when it was removed by force under its container."""
        try:
            return self._store.images.get(image_id).raw
        except NoSuchImage:
            return {}


def _config_of_image(
    wanted: ContainerConfig, container: ContainerConfig, parent: Mapping[str, Any], *, merge: bool
) -> dict[str, Any]:
    if not merge:
        return settings.config_to_image(wanted)
    merged = replace(settings.merge(wanted, container), on_build=wanted.on_build)
    known = settings.config_to_image(settings.config_from_image(parent)).keys() | _ONLY_THE_CONTAINERS
    others = {key: value for key, value in parent.items() if key not in known}
    config = settings.config_to_image(merged)
    return {**others, **{key: value for key, value in config.items() if key not in _ONLY_THE_CONTAINERS}}
