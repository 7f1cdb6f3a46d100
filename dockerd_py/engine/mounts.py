"""From what is asked to be mounted to what a container has mounted, and on to the OCI runtime's view of it.

Docker's rules: what comes from other containers (VolumesFrom) yields to binds, these exclude each other, and the
places that only the image or the client names become anonymous volumes where nothing else is mounted.  At a start the
targets are resolved inside the container's root, so that links in the image decide what lies in what.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dockerd_py import ids
from dockerd_py.confined import stat_in_root
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.engine.mount_model import BIND, LOCAL_DRIVER, TMPFS, VOLUME, Bind, Mount, MountRequest
from dockerd_py.errors import BadParameter, NotSupported
from dockerd_py.runtime import spec
from dockerd_py.store import mounts as kernel
from dockerd_py.store.archive.copying import resolve

READ_MODES = {"rw": False, "ro": True}
PROPAGATIONS = ("shared", "rshared", "slave", "rslave", "private", "rprivate")
LABEL_MODES = ("z", "Z")
"""SELinux labels: accepted, and without effect where SELinux is off."""
HINTS = ("consistent", "cached", "delegated")
"""For the sharing of files with other systems: no effect on Linux, as in Docker."""

_TMPFS_FLAGS = frozenset(
    ("defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "mand",
     "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime")
)  # fmt: skip
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
_OPPOSITES = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NAME_MAX = 255


def check_volume_name(name: str) -> str:
    """``name``, if a volume can have it.  Raises BadParameter with Docker's words."""
    if len(name) == 1:
        raise BadParameter(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _VOLUME_NAME.fullmatch(name):
        raise BadParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) > _NAME_MAX:
        raise BadParameter(f"create {name}: volume name is too long, it can have {_NAME_MAX} characters")
    return name


def check_driver(name: str, driver: str) -> None:
    """Raises NotSupported for any driver but the one that there is."""
    if driver not in ("", LOCAL_DRIVER):
        raise NotSupported(
            f"create {name}: the volume driver {driver!r} is not supported by this version: there is {LOCAL_DRIVER}"
        )


def plan(
    config: ContainerConfig,
    host: HostConfig,
    *,
    mounts_of: Callable[[str], Sequence[Mount]],
    data: Callable[[str], Path],
    root: Path,
) -> tuple[Mount, ...]:
    """What a container with these settings, already merged with its image's, has mounted.

    mounts_of: another container's mounts, by its name or id.  data: a volume's directory.  root: the daemon's.
    Raises BadParameter, NotSupported, NoSuchContainer.
    """
    found: dict[str, Mount] = {}
    for text in host.volumes_from:
        for mount in _taken_over(text, mounts_of):
            found[mount.target] = mount
    for target in host.tmpfs:
        tmpfs_options(target, host.tmpfs[target])
    wanted = [*(_of_bind(bind, host.volume_driver) for bind in host.binds), *map(_of_request, host.mounts)]
    taken = {check_target(target, "tmpfs") for target in host.tmpfs}
    for mount in wanted:
        if mount.target in taken:
            raise BadParameter(f"Duplicate mount point: {mount.target}")
        taken.add(mount.target)
        found[mount.target] = mount
    for path in config.volumes:
        target = check_target("/" + path, VOLUME)
        if target not in found and target not in taken:
            check_driver(target, host.volume_driver)
            found[target] = Mount(VOLUME, "", target, name=ids.new_id(), driver=LOCAL_DRIVER, anonymous=True, copy=True)
    return tuple(_placed(mount, data, root) for mount in found.values())


def replanned(before: Iterable[Mount], planned: Iterable[Mount], known: Callable[[str], bool]) -> tuple[Mount, ...]:
    """``planned`` for a container that is there already: its volumes without a name stay where they were.

    known: whether the container has a volume.  Raises NotSupported for one that it has not.
    """
    kept = {mount.target: mount for mount in before if mount.type == VOLUME and mount.anonymous}
    result = []
    for mount in planned:
        if mount.type == VOLUME and not known(mount.name):
            old = kept.get(mount.target)
            if not mount.anonymous or old is None:
                raise NotSupported(
                    f"a volume at {mount.target} that the container was not created with is not supported by this "
                    "version: give it to create"
                )
            mount = replace(old, read_only=mount.read_only)
        result.append(mount)
    return tuple(result)


def of_binds(binds: Iterable[Bind]) -> tuple[Mount, ...]:
    """The mounts of a container that was recorded before these were recorded themselves."""
    return tuple(replace(_of_bind(bind, ""), propagation="rprivate") for bind in binds)


def check_target(path: str, kind: str) -> str:
    """A place in a container, normalised.  Raises BadParameter."""
    if "\0" in path:
        raise BadParameter("invalid mount path: a NUL character is not allowed")
    if not path.startswith("/"):
        raise BadParameter(f'invalid mount config for type "{kind}": invalid mount path: \'{path}\' '
                           "mount path must be absolute")  # fmt: skip
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if normal == "/":
        raise BadParameter(f"invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'")
    return normal


def tmpfs_options(target: str, text: str) -> tuple[str, ...]:
    """The options of one tmpfs, Docker's defaults among them.  Raises BadParameter for one that is none."""
    check_target(target, TMPFS)
    given = [option for option in text.split(",") if option]
    for option in given:
        name, equals, value = option.partition("=")
        known = (name in _TMPFS_VALUES and value) if equals else name in _TMPFS_FLAGS
        if not known or any(c.isspace() for c in option):
            raise BadParameter(f'invalid tmpfs option ["{option}"]: there are size, mode, uid, gid and the mount flags')
    lifted = {_OPPOSITES[option] for option in given if option in _OPPOSITES}
    return (*(option for option in _TMPFS_DEFAULTS if option not in lifted), *given)


def check_sources(mounts: Iterable[Mount]) -> None:
    """Whether what has to be there is there: the sources of binds that are not made.  Blocks.  Raises BadParameter."""
    for mount in mounts:
        if mount.type == BIND and not mount.create_source:
            _check_source(mount)


# The runtime's view


def for_runtime(
    mounts: Iterable[Mount], tmpfs: Mapping[str, str], root: Path, home: Path
) -> tuple[tuple[spec.Bind, ...], tuple[spec.Tmpfs, ...], str]:
    """What the OCI runtime is to mount below ``root``, the mounted root filesystem, and how the root itself is to
    propagate ("" for the default).  Sources of binds are made here where they may be made.  Blocks.

    home: the daemon's root directory.
    Raises BadParameter for a source that is missing, or whose mount cannot propagate as asked.
    """
    binds = []
    # The same place as HostConfig.Tmpfs and as an anonymous volume, by way of VolumesFrom: the tmpfs counts.
    wanted = {check_target(target, TMPFS): tmpfs_options(target, text) for target, text in tmpfs.items()}
    of_root = ""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for mount in mounts:
            if mount.target in wanted:
                continue
            if mount.type == TMPFS:
                wanted[mount.target] = mount.options
                continue
            _check_source(mount)
            propagation = _propagation(mount, home)
            of_root = _stronger(of_root, propagation)
            target = resolve(root_fd, mount.target)
            binds.append(spec.Bind(mount.source, target, mount.read_only, mount.recursive, propagation))
        tmpfses = []
        for target, options in wanted.items():
            if not any(option.startswith("mode=") for option in options):
                options = (*options, f"mode={_mode_of(root_fd, target):o}")
            tmpfses.append(spec.Tmpfs(resolve(root_fd, target), options))
    finally:
        os.close(root_fd)
    return tuple(binds), tuple(tmpfses), of_root


def _check_source(mount: Mount) -> None:
    what = f"volume {mount.name}" if mount.type == VOLUME else 'invalid mount config for type "bind"'
    try:
        if mount.create_source and mount.type == BIND and not os.path.lexists(mount.source):
            os.makedirs(mount.source, mode=0o755, exist_ok=True)
        else:
            os.stat(mount.source)
    except FileNotFoundError:
        raise BadParameter(f"{what}: bind source path does not exist: {mount.source}") from None
    except OSError as error:
        raise BadParameter(f"{what}: the source path {mount.source} cannot be used: {error.strerror}") from error


def _propagation(mount: Mount, home: Path) -> str:
    """How it is to propagate; raises BadParameter where the mount of its source cannot."""
    wanted = mount.propagation or "rprivate"
    kind = wanted.lstrip("r")
    if kind == "private":
        return wanted
    point = _mount_of(mount.source)
    shared = any(peer.startswith("shared:") for peer in point.peers)
    slave = any(peer.startswith("master:") for peer in point.peers)
    if kind == "shared" and not shared:
        raise BadParameter(f"path {mount.source} is mounted on {point.path} but it is not a shared mount")
    if kind == "slave" and not (shared or slave):
        if _holds(mount.source, home):
            return "rprivate"
        raise BadParameter(f"path {mount.source} is mounted on {point.path} but it is not a shared or slave mount")
    return wanted


def _mount_of(source: str) -> kernel.MountPoint:
    """The mount that a path of the host lies on."""
    path = os.path.realpath(source)
    holding = [
        point for point in kernel.mount_points()
        if path == point.path or path.startswith(point.path.rstrip("/") + "/")
    ]  # fmt: skip
    longest = max(len(point.path) for point in holding)
    return [point for point in holding if len(point.path) == longest][-1]


def _stronger(one: str, other: str) -> str:
    """What the container's root must be so that its mounts can propagate as both ask."""
    kinds = (one, other)
    if any("shared" in kind for kind in kinds):
        return "shared"
    return "rslave" if any("slave" in kind for kind in kinds) else ""


def _mode_of(root: int, target: str) -> int:
    """The permissions that a tmpfs gets: those of what it covers."""
    try:
        return stat_in_root(root, target).st_mode & 0o7777
    except OSError:
        return 0o1777


# From the requests


def _of_bind(bind: Bind, driver: str) -> Mount:
    kind = VOLUME if bind.is_volume else BIND
    target = check_target(bind.target, kind)
    if kind == BIND:
        mode = bind.mode or ("ro" if bind.read_only else "")
        return Mount(BIND, _normal(bind.source), target, bind.read_only, mode=mode, propagation=bind.propagation)
    name = check_volume_name(bind.source) if bind.source else ids.new_id()
    check_driver(name, driver)
    return Mount(
        VOLUME, "", target, bind.read_only, name=name, driver=LOCAL_DRIVER, mode=bind.mode or "z",
        anonymous=not bind.source, copy=not bind.no_copy,
    )  # fmt: skip


def _of_request(request: MountRequest) -> Mount:
    target = check_target(request.target, request.type)
    if request.type == BIND:
        return Mount(
            BIND, _normal(request.source), target, request.read_only, propagation=request.propagation,
            recursive=not request.non_recursive, create_source=request.create_source,
        )  # fmt: skip
    if request.type == VOLUME:
        name = check_volume_name(request.source) if request.source else ids.new_id()
        check_driver(name, request.driver)
        return Mount(
            VOLUME, "", target, request.read_only, name=name, driver=LOCAL_DRIVER, mode="z",
            anonymous=not request.source, copy=not request.no_copy,
        )  # fmt: skip
    options = [f"size={request.size}"] if request.size else []
    options += [f"mode={request.mode:o}"] if request.mode else []
    options += ["ro"] if request.read_only else []
    return Mount(TMPFS, "", target, request.read_only, options=tmpfs_options(target, ",".join(options)))


def _taken_over(text: str, mounts_of: Callable[[str], Sequence[Mount]]) -> list[Mount]:
    """The mounts of another container, each read-only where it is there or where that is asked for."""
    ref, colon, modes = text.partition(":")
    if not ref:
        raise BadParameter(f"malformed volumes-from specification: {text}")
    read_only = False
    for mode in modes.split(",") if colon else ():
        if mode in READ_MODES:
            read_only = READ_MODES[mode]
        elif mode not in LABEL_MODES:
            raise BadParameter(f"invalid mode: {modes}")
    return [
        replace(mount, read_only=mount.read_only or read_only, copy=False, mode="")
        for mount in mounts_of(ref)
    ]


def _placed(mount: Mount, data: Callable[[str], Path], root: Path) -> Mount:
    if mount.type == VOLUME:
        return replace(mount, source=os.fspath(data(mount.name)))
    if mount.type == BIND and not mount.propagation:
        # What holds the daemon's own mounts must let go of them when the daemon does.
        return replace(mount, propagation="rslave" if _holds(mount.source, root) else "rprivate")
    return mount


def _holds(path: str, root: Path) -> bool:
    own = os.fspath(root)
    return own == path or own.startswith(path.rstrip("/") + "/")


def _normal(path: str) -> str:
    if not path.startswith("/"):
        raise BadParameter(f"invalid mount config for type \"bind\": invalid mount path: '{path}' "
                           "mount path must be absolute")  # fmt: skip
    if "\0" in path:
        raise BadParameter("invalid mount path: a NUL character is not allowed")
    return posixpath.normpath("/" + path.lstrip("/"))
