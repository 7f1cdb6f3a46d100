"""What is mounted into containers, as it is asked for and as it is: frozen values, like those of `model`."""

from __future__ import annotations

from dataclasses import dataclass, field

BIND, VOLUME, TMPFS = "bind", "volume", "tmpfs"

LOCAL_DRIVER = "local"

DEFAULT_SHM_SIZE = 64 << 20

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""The label of a volume that was made without a name, as Docker sets it."""


@dataclass(frozen=True)
class Bind:
    """One ``source:target[:mode]``.  ``source`` is an absolute path of the host, or a volume's name."""

    source: str
    target: str
    read_only: bool = False
    mode: str = ""  # as it was given: "ro,z"
    propagation: str = ""  # "": the default
    no_copy: bool = False  # a new volume does not get what the image has there

    @property
    def is_volume(self) -> bool:
        return not self.source.startswith("/")


@dataclass(frozen=True)
class MountRequest:
    """One mount with all its options (Docker's ``Mounts``).  What belongs to another type has its default."""

    type: str  # BIND, VOLUME or TMPFS
    target: str
    source: str = ""
    read_only: bool = False
    consistency: str = ""
    # of binds
    propagation: str = ""
    non_recursive: bool = False
    create_source: bool = False
    # of volumes
    no_copy: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    driver: str = ""
    driver_options: dict[str, str] = field(default_factory=dict)
    # of tmpfs
    size: int = 0  # bytes; 0: no limit
    mode: int = 0  # permissions; 0: the default


@dataclass(frozen=True)
class Mount:
    """One thing that a container has mounted (Docker's ``MountPoint``).

    ``source`` is a path of the host, a volume's directory among them; "" for a tmpfs.
    """

    type: str
    source: str
    target: str
    read_only: bool = False
    name: str = ""  # the volume's
    driver: str = ""  # likewise
    mode: str = ""  # as Docker shows it
    propagation: str = ""  # of a bind
    anonymous: bool = False  # a volume that goes with the last container which has it
    copy: bool = False  # a volume that gets, when it is empty, what the image has there
    recursive: bool = True  # a bind with what is mounted below its source
    create_source: bool = True  # a bind whose source is made where it is missing
    options: tuple[str, ...] = ()  # of a tmpfs


@dataclass(frozen=True)
class Volume:
    """One volume of the driver "local".  ``options``: type, o and device of what is mounted for it, or nothing."""

    name: str
    created: int
    labels: dict[str, str]
    options: dict[str, str]
    mountpoint: str
    users: tuple[str, ...]  # ids of the containers that have it, running or not
    driver: str = LOCAL_DRIVER

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in self.labels
