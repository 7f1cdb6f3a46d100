"""How long a container's entry lasts, and what comes back after the service was killed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import QTYPE, RR, DNSRecord
from dnslib import A as Address
from name_house import PROGRAM, House, until
from name_house import house as open_house

from dockerd_py import wire
from dockerd_py.nat.dns import state
from dockerd_py.nat.dns.model import NetworkNames


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as it:
        yield it


def on(number: int, *names: str) -> NetworkNames:
    return NetworkNames("n", "shop", f"10.0.0.{number}", "", names)


def test_an_entry_ends_with_the_container_and_no_daemon_is_needed(house: House) -> None:
    asker, web = house.container(), house.container()
    house.put(asker, on(2, "cart"))
    house.put(web, on(3, "web"))
    house.link.close()
    assert asker.addresses("web") == ["10.0.0.3"]
    web.end()

    def gone() -> bool:
        with contextlib.suppress(LookupError):
            return not asker.addresses("web")
        return True

    until(gone, 5)
    house.connect()
    assert house.known() == [asker.id]


def test_the_service_keeps_no_namespace_of_a_container_that_has_ended(house: House) -> None:
    web = house.container()
    house.put(web, on(3, "web"))
    before = descriptors(house)
    web.end()
    until(lambda: house.known() == [], 5)
    assert descriptors(house) == before - 4, "three sockets and a pidfd"


def descriptors(house: House) -> int:
    return len(os.listdir(f"/proc/{house.process.pid}/fd"))


def test_a_start_that_was_not_completed_ends_with_the_daemons_connection(house: House) -> None:
    asker, half, later = house.container(), house.container(), house.container()
    house.put(asker, on(2, "cart"))
    house.put(half, on(3, "half"), started=False)
    house.put(later, on(4, "later"), started=False)
    pidfd = os.pidfd_open(later.pid)
    wire.send(house.link, {"op": "started", "id": later.id}, (pidfd,))
    os.close(pidfd)
    assert asker.addresses("half") == ["10.0.0.3"]
    house.link.close()
    house.connect()
    until(lambda: house.known() == [asker.id, later.id], 5)
    assert asker.addresses("later") == ["10.0.0.4"]


def test_two_connections_do_not_disturb_each_other(house: House) -> None:
    one = house.container()
    house.put(one, on(2, "one"), started=False)
    with wire.connect(house.path) as other:
        wire.send(other, {"op": "forget", "seq": 1, "id": "e" * 64})
        assert wire.receive(other)[0] == {"seq": 1}
    assert house.known() == [one.id]


def test_an_entry_in_place_of_another_one_closes_its_sockets(house: House) -> None:
    one = house.container()
    house.put(one, on(2, "cart"))
    before = descriptors(house)
    house.put(one, on(3, "cart"))
    assert descriptors(house) == before
    assert one.addresses("cart") == ["10.0.0.3"]
    one.end()
    until(lambda: house.known() == [], 5)


def test_a_killed_service_comes_back_with_everything(house: House) -> None:
    def right(query: DNSRecord, by: str) -> bytes:
        reply = query.reply()
        reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=Address("192.0.2.7")))
        return bytes(reply.pack())

    house.upstream("127.0.0.21", right)
    asker, web, ended = house.container(), house.container(), house.container()
    house.put(asker, on(2, "cart"), servers=("127.0.0.21",))
    house.put(web, on(3, "web"))
    house.put(ended, on(4, "ended"))
    house.kill()
    ended.end()
    with pytest.raises((TimeoutError, ConnectionRefusedError)):
        asker.addresses("web", timeout=0.1)
    house.start()
    assert asker.addresses("web") == ["10.0.0.3"]
    assert asker.addresses("web", tcp=True) == ["10.0.0.3"]
    assert asker.addresses("example.org") == ["192.0.2.7"]
    assert house.known() == [asker.id, web.id]
    web.end()
    until(lambda: house.known() == [asker.id], 5)


def test_a_connection_that_was_open_when_the_service_was_killed_is_in_nobodys_way(house: House) -> None:
    asker = house.container()
    house.put(asker, on(2, "cart"))
    with asker.socket(socket.SOCK_STREAM) as sock:
        sock.connect(("127.0.0.11", 53))
        house.kill()
        house.start()
        assert asker.addresses("cart", tcp=True) == ["10.0.0.2"]


def test_a_process_that_has_a_dead_ones_pid_is_not_its_container(house: House) -> None:
    asker, web = house.container(), house.container()
    house.put(asker, on(2, "cart"))
    entry = house.put(web, on(3, "web"))
    house.kill()
    pid, started = state.Process.of(web.pid)
    state.write(house.directory / "names", state.Saved(entry, state.Process(pid, started + 1), (0, 0)))
    house.start()
    assert house.known() == [asker.id]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"entry": {}, "process": [1, 2]}', '{"entry": 1, "process": "x"}'])
def test_a_file_that_cannot_be_used_keeps_nobody_else_from_coming_back(house: House, text: str) -> None:
    asker = house.container()
    house.put(asker, on(2, "cart"))
    house.kill()
    (house.directory / "names" / f"{'e' * 64}.json").write_text(text)
    house.start()
    assert house.known() == [asker.id]


def test_a_service_that_a_daemon_started_ends_with_it(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    argv = [sys.executable, "-I", "-S", PROGRAM, str(tmp_path / "names.sock"), "--lifeline", str(read_end)]
    with subprocess.Popen(argv, pass_fds=[read_end]) as process:
        os.close(read_end)
        until((tmp_path / "names.sock").exists, 10)
        assert process.poll() is None
        os.close(write_end)
        assert process.wait(10) == 0


def test_the_service_says_that_it_is_ready(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(10)
        argv = [sys.executable, "-I", "-S", PROGRAM, str(tmp_path / "names.sock")]
        with subprocess.Popen(argv, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as process:
            try:
                assert notify.recv(100) == b"READY=1"
                wire.connect(str(tmp_path / "names.sock")).close()
            finally:
                process.kill()


def test_only_the_user_that_started_it_is_listened_to(house: House) -> None:
    os.chmod(house.path, 0o777)
    for directory in (house.directory, *house.directory.parents):
        if os.stat(directory).st_mode & 0o001 == 0:
            os.chmod(directory, os.stat(directory).st_mode | 0o001)
    script = (
        "import os, socket, sys; os.setgid(1); os.setuid(1); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.connect(sys.argv[1]); sys.exit(len(s.recv(1)))"
    )
    subprocess.run([sys.executable, "-c", script, house.path], check=True, timeout=10)
    assert house.known() == []
