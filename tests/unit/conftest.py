"""Fixtures that several files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import net_picture
import pytest
from bus_house import House
from daemons import Daemon
from eras_house import old  # noqa: F401
from firewall_stage import own, stage, the_stage  # noqa: F401
from hypothesis import settings
from net_house import NetDaemon
from volume_house import nothing_left, seeded  # noqa: F401

# The same examples on every run: what fails once fails again, and a change is to blame for what it broke.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with an image named busybox.  Shared by a module's tests: each leaves it as it found it."""
    one = Daemon(tmp_path_factory.mktemp("daemon"))
    one.start()
    one.import_busybox()
    yield one
    one.close()
    assert one.leftovers() == []


@pytest.fixture
def own_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that a test may kill."""
    one = Daemon(tmp_path_factory.mktemp("own"))
    one.start()
    one.import_busybox()
    yield one
    one.close()
    assert one.leftovers() == []


@pytest.fixture(scope="module")
def net_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetDaemon]:
    """A daemon with an image named busybox on a host of its own, with its networks.  Shared by a module's tests."""
    yield from _on_a_host_of_its_own(tmp_path_factory.mktemp("net"))


@pytest.fixture
def own_net_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetDaemon]:
    """Such a daemon that a test may kill."""
    yield from _on_a_host_of_its_own(tmp_path_factory.mktemp("own-net"))


@pytest.fixture(scope="module")
def dual_net_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetDaemon]:
    """As `net_daemon`, with IPv6 on the default bridge, too."""
    yield from _on_a_host_of_its_own(tmp_path_factory.mktemp("dual-net"), "--ipv6")


def _on_a_host_of_its_own(directory: Path, *flags: str) -> Iterator[NetDaemon]:
    one = NetDaemon(directory, *flags)
    one.start()
    one.import_busybox()
    before = net_picture.of(one)
    yield one
    try:
        one.clear()
        assert net_picture.of(one) == before
    finally:
        one.close()
        one.vanish()
    assert one.leftovers() == []


@pytest.fixture(scope="module")
def the_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    it = House(tmp_path_factory.mktemp("house"))
    it.open()
    yield it
    it.close()


@pytest.fixture
def house(the_house: House) -> Iterator[House]:
    """A daemon on a bus of its own, without a container.  Shared by a module's tests."""
    yield the_house
    the_house.clear()
