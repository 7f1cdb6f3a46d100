"""The name service as systemd runs it: installed, and for a daemon that was started by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosttools import main_pid, run, systemctl, unit_property, wait_until

from dockerd_py.engine.nameservice import NameEntry, NameService, NetworkNames
from dockerd_py.nat.dns import message
from dockerd_py.units.connect import connect_units

UNIT = "pydockerd-dns.service"


class Container:
    """A process in a network namespace of its own."""

    def __init__(self, number: int) -> None:
        self.id = f"{number:064x}"
        self.process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.pid = self.process.pid

    def entry(self, name: str) -> NameEntry:
        return NameEntry(self.id, (NetworkNames("n", "shop", f"10.0.0.{int(self.id, 16)}", "", (name,)),))

    @contextlib.contextmanager
    def namespace(self) -> Iterator[int]:
        fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)

    def ask(self, name: str) -> str:
        """An address; "" when there is none."""
        script = (
            "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(1)\n"
            "s.connect(('127.0.0.11', 53)); s.send(bytes.fromhex(sys.argv[1])); print(s.recv(4096).hex())"
        )
        query = b"\0\7\1\0\0\1\0\0\0\0\0\0" + message.encode_name(name.encode()) + b"\0\1\0\1"
        done = run("nsenter", f"--net=/proc/{self.pid}/ns/net", "python3", "-c", script, query.hex(), check=False)
        answer = bytes.fromhex(done.stdout)
        return socket.inet_ntoa(answer[-4:]) if answer[7:8] == b"\1" else ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def containers() -> Iterator[tuple[Container, Container]]:
    two = Container(1), Container(2)
    yield two
    for each in two:
        each.close()


@pytest.fixture
def exec_root(daemon: None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/run") as name:
        yield Path(name)


def test_the_installed_service_starts_by_itself_and_outlives_all(
    daemon: None, containers: tuple[Container, Container]
) -> None:
    asker, web = containers

    async def before() -> None:
        service = NameService(Path("/run/pydockerd"), await connect_units(), installed=True)
        for each, name in ((asker, "cart"), (web, "web")):
            with each.namespace() as namespace:
                await service.put(each.entry(name), namespace, pid=each.pid)
        await service.close(idle=False)

    asyncio.run(before())
    try:
        assert systemctl("is-active", UNIT) == "active"
        assert asker.ask("web") == "10.0.0.2"
        pid = main_pid(UNIT)
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert int(status["Uid"].split()[0]) == pwd.getpwnam("pydockerd-dns").pw_uid
        assert int(status["CapPrm"], 16) == 0
        assert status["Seccomp"] == "2"

        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: asker.ask("web") == "10.0.0.2", 10, "names are back")
        systemctl("restart", UNIT)
        assert asker.ask("web") == "10.0.0.2"
        web.close()
        wait_until(lambda: asker.ask("web") == "", 10, "the name has gone with the container")
    finally:
        systemctl("stop", UNIT)
        for path in Path("/run/pydockerd/names").iterdir():
            path.unlink()


def test_a_daemon_started_by_hand_gets_a_transient_service(
    exec_root: Path, containers: tuple[Container, Container]
) -> None:
    asker, web = containers

    def services() -> list[str]:
        return [each["unit"] for each in json.loads(run(
            "systemctl", "list-units", "--all", "--output=json", "pydockerd-dns-*.service"
        ).stdout)]  # fmt: skip

    async def story() -> None:
        service = NameService(exec_root, await connect_units(), installed=False)
        for each, name in ((asker, "cart"), (web, "web")):
            with each.namespace() as namespace:
                await service.put(each.entry(name), namespace, pid=each.pid)
        (unit,) = services()
        os.kill(main_pid(unit), signal.SIGKILL)
        await service.change(web.entry("www"))
        assert asker.ask("www") == "10.0.0.2"
        assert services() == [unit]
        await service.close(idle=False)
        assert services() == [unit], "it stays for the containers"
        assert asker.ask("www") == "10.0.0.2"

        after = NameService(exec_root, await connect_units(), installed=False)
        await after.adopt([(asker.entry("cart"), asker.pid), (web.entry("www"), web.pid)])
        for each in (asker, web):
            await after.forget(each.id)
        await after.close(idle=True)
        assert services() == []

    asyncio.run(story())


def test_systemd_vouches_for_what_the_service_cannot_do(daemon: None) -> None:
    assert unit_property(UNIT, "NoNewPrivileges") == "yes"
    assert "mount" not in unit_property(UNIT, "SystemCallFilter").split()
