"""What is in containers' root filesystems: what they changed, images made of it, files copied out and in.

Whatever looks at a container's files is a helper process that the kernel confines to them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from dockerd_py.engine import forms, settings
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.images import Images
from dockerd_py.engine.model import Change, ChangeKind, CommitOptions, ContainerConfig, PathStat, Status
from dockerd_py.engine.mount_model import TMPFS
from dockerd_py.engine.record import Paths, Record
from dockerd_py.engine.volumes import Volumes
from dockerd_py.errors import Conflict, NoSuchContainer, NoSuchImage, NotFound, NotSupported
from dockerd_py.runtime import users
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
    def __init__(
        self,
        paths: Paths,
        store: Store,
        containers: Containers,
        images: Images,
        volumes: Volumes,
        units: Units,
        events: EventLog,
        unpack_limit: int,
    ) -> None:
        self._paths = paths
        self._store = store
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._units = units
        self._events = events
        self._unpack_limit = unpack_limit

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
        wanted = forms.config_from_image(
            image_config.apply_changes(options.changes, forms.config_to_image(options.config))
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
                    container_config=forms.config_to_image(record.config),
                    version=VERSION,
                )

            layers = self._store.layers
            layers.check_room_on(layers.parent_chain(record.id))  # before anything is stopped for it
            async with self._paused(record, options.pause), contents.layer(layers.view_rw(record.id)) as tar:
                image = await self._store.images.derive(
                    tar, describe, parent_id=record.image_id, chain=layers.parent_chain(record.id), name=name
                )
        reference = f"{name[0]}:{name[1]}" if name else ""
        attributes = record.attributes(comment=options.comment, imageID=f"sha256:{image.id}", imageRef=reference)
        self._events.publish("container", "commit", record.id, attributes)
        return image.id

    # Copies

    async def stat(self, ref: str, path: str) -> PathStat:
        """What is at a path of a container's.  Raises NoSuchContainer, NotFound, BadParameter."""
        async with self._copied_out(ref, path, tar=False) as (found, _):
            return found

    @asynccontextmanager
    async def archive(
        self, ref: str, path: str, *, follow: bool = False
    ) -> AsyncIterator[tuple[PathStat, AsyncGenerator[bytes, None]]]:
        """The stat and a tar of what is at a path; its topmost entry bears the name that the path ends with.

        follow: a link at the path is not copied itself but what it leads to.  Raises as `stat` does.
        """
        async with self._copied_out(ref, path, tar=True, follow=follow) as found:
            yield found
        self._publish("archive-path", ref, path)

    async def extract(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        no_overwrite: bool = False,
        users_own: bool = False,
    ) -> None:
        """Unpack a tar, plain or compressed, into a directory of a container's.

        no_overwrite: a directory never takes a file's place, nor the other way round.  users_own: all of it belongs
        to the container's user, else to whom the tar says.
        Raises NoSuchContainer, NotFound, BadParameter, BadArchive, Denied (it is mounted read-only).
        """
        record = self._containers.record(ref)
        async with self._root(record) as root:
            owner = None
            if users_own and record.config.user:
                user = await asyncio.to_thread(users.resolve, str(root.path), record.config.user)
                owner = (user.uid, user.gid)
            try:
                await contents.copy_in(
                    root, path, source, no_overwrite=no_overwrite, owner=owner, limit=self._unpack_limit
                )
            except NotFound as error:
                raise _missing(path, ref, error) from None
        self._publish("extract-to-dir", ref, path)

    # Below

    @asynccontextmanager
    async def _copied_out(
        self, ref: str, path: str, *, tar: bool, follow: bool = False
    ) -> AsyncIterator[tuple[PathStat, AsyncGenerator[bytes, None]]]:
        async with self._root(self._containers.record(ref)) as root, AsyncExitStack() as stack:
            try:
                copying = contents.copied_out(root, path, tar=tar, follow=follow)
                found, content = await stack.enter_async_context(copying)
            except NotFound as error:
                raise _missing(path, ref, error) from None
            yield PathStat(found["name"], found["size"], found["mode"], found["mtime"], found["link"]), content

    @asynccontextmanager
    async def _root(self, record: Record) -> AsyncIterator[contents.Root]:
        """The root filesystem with what is mounted there, whether the container runs or not."""
        if record.gone or record.removing:
            raise Conflict(f"container {record.name} is being removed")
        directory = self._paths.directory(record.id)
        mounts = [(str(directory / name), f"/etc/{name}", False) for name in ("hostname", "hosts", "resolv.conf")]
        mounts += [(one.source, one.target, one.read_only) for one in record.mounts if one.type != TMPFS]
        targets = {target: (source, target, read_only) for source, target, read_only in mounts}
        async with self._volumes.held(record), self._store.layers.held_rw(record.id) as path:
            yield contents.Root(path, tuple(targets.values()))

    def _publish(self, action: str, ref: str, path: str) -> None:
        with contextlib.suppress(NotFound):  # removed meanwhile
            record = self._containers.record(ref)
            self._events.publish("container", action, record.id, record.attributes(path=path))

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
        if not wanted or record.state.status is not Status.RUNNING:
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


def _missing(path: str, ref: str, error: NotFound) -> NotFound:
    known = isinstance(error, NoSuchContainer)
    return error if known else NotFound(f"Could not find the file {path} in container {ref}")


def _config_of_image(
    wanted: ContainerConfig, container: ContainerConfig, parent: Mapping[str, Any], *, merge: bool
) -> dict[str, Any]:
    if not merge:
        return forms.config_to_image(wanted)
    merged = replace(settings.merge(wanted, container), on_build=wanted.on_build)
    known = forms.config_to_image(forms.config_from_image(parent)).keys() | _ONLY_THE_CONTAINERS
    others = {key: value for key, value in parent.items() if key not in known}
    config = forms.config_to_image(merged)
    return {**others, **{key: value for key, value in config.items() if key not in _ONLY_THE_CONTAINERS}}
