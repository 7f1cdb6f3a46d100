"""Published ports as the monitor relays them: real sockets, on this machine's loopback addresses."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import make_rootfs, monitor_config
from test_monitor import ID, Talk, fork_server  # noqa: F401 - a fixture

from dockerd_py import wire
from dockerd_py.monitor import relay as relay_module
from dockerd_py.monitor.loop import Loop
from dockerd_py.monitor.relay import Relay

HOST = "127.0.0.1"  # where the host's ports are
CONTAINER = "127.0.0.2"  # where the container's are
OTHER_CONTAINER = "127.0.0.3"
PATIENCE = 30


class House:
    """A relay in a thread, as a monitor has it in its loop."""

    def __init__(self) -> None:
        self._loop = Loop()
        self.relay = Relay(self._loop)
        self._wake, self._woken = os.pipe()
        self._calls: list[tuple[Callable[[], None], threading.Event]] = []
        self._done = False
        self._loop.watch(self._wake, select.EPOLLIN, self._run_calls)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._done:
            self._loop.turn(min([1.0, *(max(0.0, at - time.monotonic()) for at in self.relay.due)]))
            self.relay.settle(time.monotonic())

    def _run_calls(self, _: int) -> None:
        os.read(self._wake, 100)
        while self._calls:
            call, done = self._calls.pop(0)
            call()
            done.set()

    def call(self, what: Callable[[], None]) -> None:
        done = threading.Event()
        self._calls.append((what, done))
        os.write(self._woken, b"x")
        assert done.wait(PATIENCE)

    def publish(self, target: tuple[str, int], kind: int = socket.SOCK_STREAM, host: str = HOST) -> tuple[str, int]:
        """The address where ``target`` is published."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen(100)
        address: tuple[str, int] = sock.getsockname()[:2]
        protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
        self.call(lambda: self.relay.add(sock, protocol, *target))
        return address

    def close(self) -> None:
        if not self._done:
            self.call(self.relay.close)
            self._done = True
            os.write(self._woken, b"x")
            self._thread.join()
            self._loop.close()
            os.close(self._wake)
            os.close(self._woken)


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.close()


@contextlib.contextmanager
def listening(address: str = CONTAINER) -> Iterator[socket.socket]:
    """A server of the container's."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        server.bind((address, 0))
        server.listen(200)
        server.settimeout(PATIENCE)
        yield server


def only_connection(house: House) -> Any:
    """The relay's part of it may come after both ends have it."""
    until(lambda: house.relay.connections)
    (connection,) = house.relay.connections
    return connection


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE)


@contextlib.contextmanager
def joined(house: House) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket, and the one of the container's that it is joined with."""
    with listening() as server, connect(house.publish(server.getsockname())) as client:
        served, _ = server.accept()
        served.settimeout(PATIENCE)
        with served:
            yield client, served


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(1 << 16):
        data += piece
    return bytes(data)


def clogged(sock: socket.socket) -> bool:
    """Send until no more is taken now."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(1 << 16))
    return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hundred_megabytes_pass_both_ways_at_once_unharmed(house: House) -> None:
    size, piece = 100 << 20, random.Random(1).randbytes(1 << 20)
    received: dict[str, tuple[int, str]] = {}

    def send(sock: socket.socket) -> None:
        for number in range(size >> 20):
            sock.sendall(number.to_bytes(4, "big") + piece[4:])
        sock.shutdown(socket.SHUT_WR)

    def receive(name: str, sock: socket.socket) -> None:
        digest, count = hashlib.sha1(), 0
        while data := sock.recv(1 << 18):
            digest.update(data)
            count += len(data)
        received[name] = count, digest.hexdigest()

    with joined(house) as (client, served):
        threads = [
            *(threading.Thread(target=send, args=(sock,)) for sock in (client, served)),
            *(threading.Thread(target=receive, args=pair) for pair in (("client", client), ("served", served))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = hashlib.sha1()
    for number in range(size >> 20):
        expected.update(number.to_bytes(4, "big") + piece[4:])
    assert received == dict.fromkeys(("client", "served"), (size, expected.hexdigest()))


def test_who_has_ended_one_side_still_gets_the_other(house: House) -> None:
    with joined(house) as (client, served):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_all(served) == b"question"
        served.sendall(b"a long answer" * 1000)
        served.close()
        assert read_all(client) == b"a long answer" * 1000


def test_the_container_may_end_its_side_first(house: House) -> None:
    with joined(house) as (client, served):
        served.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        client.sendall(b"goes on")
        client.close()
        assert read_all(served) == b"goes on"
    until(lambda: not house.relay.connections)


def test_a_reader_that_is_slow_gets_all_and_little_is_kept_for_it(house: House) -> None:
    total = 64 << 20
    with joined(house) as (client, served):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sender = threading.Thread(target=lambda: (served.sendall(bytes(total)), served.close()))
        sender.start()
        connection = only_connection(house)
        until(lambda: len(connection._out.rest) > 0)
        assert len(connection._out.rest) <= relay_module.BUFFER
        count = 0
        while data := client.recv(1 << 16):
            count += len(data)
        sender.join()
    assert count == total


def test_a_stuck_connection_leaves_the_others_alone(house: House) -> None:
    with listening() as server:
        address = house.publish(server.getsockname())
        with connect(address) as stuck:
            served, _ = server.accept()
            with served:
                connection = only_connection(house)
                until(lambda: clogged(served) and len(connection._out.rest) > 0)
                with connect(address) as other:
                    served_too, _ = server.accept()
                    with served_too:
                        other.sendall(b"hello")
                        assert served_too.recv(10) == b"hello"
                assert stuck.recv(1) == b"\0"


def test_many_clients_at_once_each_get_their_own_answer(house: House) -> None:
    with listening() as server:
        address = house.publish(server.getsockname())
        clients = [connect(address) for _ in range(150)]
        served = [server.accept()[0] for _ in clients]
        for number, client in enumerate(clients):
            client.sendall(b"%d\n" % number)
        for sock in served:
            with sock:
                sock.sendall(b"you are " + sock.recv(100))
        for number, client in enumerate(clients):
            with client:
                assert read_all(client) == b"you are %d\n" % number
    until(lambda: not house.relay.connections)


def test_where_nobody_listens_in_the_container_the_client_is_reset(house: House) -> None:
    with listening() as server:
        target = server.getsockname()
    address = house.publish(target)
    with pytest.raises(ConnectionResetError), connect(address) as client:
        client.recv(1)
    with listening() as server:  # and it goes on
        address = house.publish(server.getsockname())
        with connect(address), server.accept()[0]:
            pass


@pytest.mark.parametrize("who", ["client", "served"])
def test_a_reset_goes_on_to_the_other_end(house: House, who: str) -> None:
    with joined(house) as (client, served):
        aborted, other = (client, served) if who == "client" else (served, client)
        aborted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        aborted.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
    until(lambda: not house.relay.connections)


def test_a_client_that_is_gone_is_let_go_of_though_the_container_reads_nothing(house: House) -> None:
    with joined(house) as (client, served):
        connection = only_connection(house)
        until(lambda: clogged(client) and len(connection._in.rest) > 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        until(lambda: not house.relay.connections)
        assert served.fileno() > 0


def test_what_the_container_sent_before_it_reset_reaches_a_slow_client(house: House) -> None:
    with joined(house) as (client, served):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        client.sendall(b"a question that nobody reads")
        until(lambda: bool(select.select([served], [], [], 0)[0]))
        connection = only_connection(house)
        until(lambda: clogged(served) and len(connection._out.rest) > 0)
        kept = len(connection._out.rest)
        served.close()  # with unread input: a reset
        count = 0
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(1 << 14):
                count += len(data)
        assert count >= kept


def test_half_closed_ends_do_not_keep_the_loop_busy(house: House) -> None:
    with joined(house) as (client, served):
        turns = 0
        turn = house.relay.turn

        def count() -> None:
            nonlocal turns
            turns += 1
            turn()

        house.call(lambda: setattr(house.relay, "turn", count))
        client.shutdown(socket.SHUT_WR)
        assert served.recv(1) == b""
        served.sendall(b"x")
        assert client.recv(1) == b"x"
        before = turns
        time.sleep(0.2)
        assert turns - before < 10


def test_ipv6_of_the_host_reaches_an_ipv4_container(house: House) -> None:
    try:
        with listening() as server:
            address = house.publish(server.getsockname(), host="::1")
            with connect(address) as client, server.accept()[0] as served:
                client.sendall(b"x")
                assert served.recv(1) == b"x"
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def test_too_many_connections_wait_in_the_queue(house: House) -> None:
    with listening() as server:
        address = house.publish(server.getsockname())
        house.relay._fds = 2 * 2
        clients = [connect(address) for _ in range(3)]
        first, second = server.accept()[0], server.accept()[0]
        assert not select.select([server], [], [], 0.3)[0]
        assert len(house.relay.connections) == 2
        for sock in (first, second):
            sock.close()
        for client in clients[:2]:
            client.close()
        with server.accept()[0] as third:
            clients[2].sendall(b"at last")
            assert third.recv(10) == b"at last"
        clients[2].close()


def test_released_ports_are_free_and_what_is_under_way_still_arrives(house: House) -> None:
    with listening() as server:
        address = house.publish(server.getsockname())
        with connect(address) as client:
            served, _ = server.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            sender = threading.Thread(target=lambda: (served.sendall(bytes(16 << 20)), served.close()))
            sender.start()
            client.recv(1)
            house.call(house.relay.release)
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(address)
                other.listen()
            assert house.relay.lingers(time.monotonic())
            assert len(read_all(client)) == (16 << 20) - 1
            sender.join()
    until(lambda: not house.relay.connections)
    assert not house.relay.lingers(time.monotonic())


def test_after_the_containers_end_nobody_is_waited_for_who_takes_nothing(house: House) -> None:
    with joined(house):
        house.call(house.relay.release)
        now = time.monotonic()
        assert house.relay.lingers(now)
        assert not house.relay.lingers(now + relay_module.LINGER_SECONDS + 1)


def test_after_the_containers_end_nobody_is_waited_for_forever(house: House) -> None:
    with joined(house):
        house.call(house.relay.release)
        now = time.monotonic() + relay_module.LINGER_MOST
        for later, waits in ((-1, True), (1, False)):
            house.relay.progressed = now + later  # as if its client had just taken something
            assert house.relay.lingers(now + later) is waits


# UDP


@contextlib.contextmanager
def udp(address: str, port: int = 0) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        sock.settimeout(PATIENCE)
        yield sock


def test_ports_lead_to_another_address_without_being_free_in_between(house: House) -> None:
    with listening() as first, udp(CONTAINER) as first_udp, udp(HOST) as asker:
        port, udp_port = first.getsockname()[1], first_udp.getsockname()[1]
        address = house.publish(first.getsockname())
        udp_address = house.publish(first_udp.getsockname(), socket.SOCK_DGRAM)
        asker.sendto(b"one", udp_address)
        assert first_udp.recvfrom(100)[0] == b"one"
        with (
            socket.create_server((OTHER_CONTAINER, port)) as second,
            udp(OTHER_CONTAINER, udp_port) as second_udp,
            connect(address) as client,
            first.accept()[0],
        ):
            only_connection(house)
            held = [os.stat(f"/proc/self/fd/{each.sock.fileno()}").st_ino for each in house.relay._ports]
            house.call(lambda: house.relay.aim(OTHER_CONTAINER))
            assert held == [os.stat(f"/proc/self/fd/{each.sock.fileno()}").st_ino for each in house.relay._ports]
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            with connect(address), second.accept()[0]:
                pass
            asker.sendto(b"two", udp_address)
            data, peer = second_udp.recvfrom(100)
            second_udp.sendto(b"you are " + data, peer)
            assert asker.recvfrom(100) == (b"you are two", udp_address)


def test_each_udp_client_gets_its_own_answers(house: House) -> None:
    with udp(CONTAINER) as server, contextlib.ExitStack() as stack:
        address = house.publish(server.getsockname(), socket.SOCK_DGRAM)
        clients = [stack.enter_context(udp(HOST)) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendto(b"%d" % number, address)
        for _ in clients:
            data, peer = server.recvfrom(100)
            server.sendto(b"you are " + data, peer)
        for number, client in enumerate(clients):
            assert client.recvfrom(100) == (b"you are %d" % number, address)


def test_the_largest_datagram_passes_whole(house: House) -> None:
    largest = random.Random(2).randbytes(65507)
    with udp(CONTAINER) as server, udp(HOST) as client:
        client.sendto(largest, house.publish(server.getsockname(), socket.SOCK_DGRAM))
        data, peer = server.recvfrom(1 << 17)
        assert data == largest
        server.sendto(data, peer)
        assert client.recv(1 << 17) == largest
        client.sendto(b"", client.getsockname())
        assert client.recv(10) == b""


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.3"), ("::", "::1")])
def test_an_answer_comes_from_the_address_that_was_asked(house: House, host: str, asked: str) -> None:
    try:
        with udp(CONTAINER) as server, udp("::1" if ":" in host else HOST) as client:
            _, port = house.publish(server.getsockname(), socket.SOCK_DGRAM, host=host)
            client.sendto(b"x", (asked, port))
            _, peer = server.recvfrom(10)
            server.sendto(b"y", peer)
            assert client.recvfrom(10)[1][:2] == (asked, port)
    except OSError as error:
        if ":" not in host:
            raise
        pytest.skip(f"this machine has no IPv6: {error}")


def test_datagrams_to_where_nobody_listens_do_no_harm_and_the_next_one_arrives(house: House) -> None:
    with udp(CONTAINER) as server:
        target = server.getsockname()
    with udp(HOST) as client:
        address = house.publish(target, socket.SOCK_DGRAM)
        for _ in range(5):
            client.sendto(b"lost", address)
        until(lambda: len(house.relay.clients) == 1)
        with udp(*target) as server:
            client.sendto(b"heard", address)
            until(lambda: bool(select.select([server], [], [], 0)[0]))
            seen = server.recv(10)
            while seen == b"lost":
                seen = server.recv(10)
            assert seen == b"heard"


def test_beyond_the_limit_the_client_that_was_silent_longest_is_forgotten(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "UDP_CLIENTS", 2)
    with udp(CONTAINER) as server, udp(HOST) as first, udp(HOST) as second, udp(HOST) as third:
        address = house.publish(server.getsockname(), socket.SOCK_DGRAM)
        peers = []
        for client in (first, second, first, third):
            client.sendto(b"x", address)
            peers.append(server.recvfrom(10)[1])
        assert peers[0] == peers[2]
        assert {client._address for client in house.relay.clients.values()} == {
            first.getsockname(), third.getsockname(),
        }  # fmt: skip


def test_a_udp_client_is_forgotten_after_a_long_silence(house: House) -> None:
    with udp(CONTAINER) as server, udp(HOST) as client:
        address = house.publish(server.getsockname(), socket.SOCK_DGRAM)
        client.sendto(b"x", address)
        server.recv(10)
        (due,) = house.relay.due
        house.call(lambda: house.relay.settle(due - 1))
        assert len(house.relay.clients) == 1
        house.call(lambda: house.relay.settle(due))
        assert not house.relay.clients
        client.sendto(b"again", address)
        assert server.recv(10) == b"again"


# In a monitor


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


def start(tmp_path: Path, rootfs: Path, script: str, *ports: tuple[socket.socket, str, int]) -> Talk:
    sock = wire.connect(str(tmp_path / "fork.sock"))
    config = monitor_config(tmp_path, rootfs, ID, "/bin/sh", "-c", script)
    wire.send(sock, {"op": "monitor", "version": 1, "config": config})
    message, _ = wire.receive(sock)
    assert message is not None
    assert message["event"] == "ready"
    talk = Talk(sock)
    for at in range(0, len(ports), wire.MAX_FDS):
        batch = ports[at : at + wire.MAX_FDS]
        answer = talk.ask(
            "publish",
            fds=tuple(held.fileno() for held, _, _ in batch),
            ports=[{"protocol": "tcp", "address": address, "port": port} for _, address, port in batch],
        )
        assert "error" not in answer
        for held, _, _ in batch:
            held.close()
    for op in ("gate", "create", "start"):
        assert "error" not in talk.ask(op)
    return talk


def held_port() -> tuple[socket.socket, tuple[str, int]]:
    sock = socket.create_server((HOST, 0), backlog=100)
    return sock, sock.getsockname()


@pytest.mark.usefixtures("fork_server")
def test_more_ports_than_one_message_has_room_for_are_relayed_by_the_monitor(tmp_path: Path, rootfs: Path) -> None:
    with listening() as server:
        held = [held_port() for _ in range(wire.MAX_FDS + 3)]
        early = connect(held[0][1])  # waits in the queue
        talk = start(tmp_path, rootfs, "sleep 1000", *((sock, *server.getsockname()) for sock, _ in held))
        with early, server.accept()[0] as served:
            early.sendall(b"early")
            assert served.recv(10) == b"early"
        for _, address in held:
            with connect(address) as client, server.accept()[0] as served:
                served.sendall(b"hello")
                served.close()
                assert read_all(client) == b"hello"
        talk.ask("kill", signal=9)
        talk.exit()


@pytest.mark.usefixtures("fork_server")
def test_the_port_is_free_when_the_containers_end_is_told(tmp_path: Path, rootfs: Path) -> None:
    with listening() as server:
        sock, address = held_port()
        talk = start(tmp_path, rootfs, "read x; sleep 0.2", (sock, *server.getsockname()))
        with connect(address), server.accept()[0]:
            talk.exit()
            socket.create_server(address).close()


@pytest.mark.usefixtures("fork_server")
def test_the_ports_of_an_aborted_start_and_those_given_back_are_free(tmp_path: Path, rootfs: Path) -> None:
    with listening() as server:
        first, address = held_port()
        talk = start(tmp_path, rootfs, "sleep 1000", (first, *server.getsockname()))
        with connect(address) as client, server.accept()[0]:
            assert talk.ask("unpublish") == {"seq": 1}
            socket.create_server(address).close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        talk.ask("kill", signal=9)
        talk.exit()


@pytest.mark.usefixtures("fork_server")
def test_the_ports_of_a_start_that_fails_are_free_when_that_is_told(tmp_path: Path, rootfs: Path) -> None:
    sock = wire.connect(str(tmp_path / "fork.sock"))
    config = monitor_config(tmp_path, rootfs, ID, "/no/such/program")
    wire.send(sock, {"op": "monitor", "version": 1, "config": config})
    wire.receive(sock)
    talk = Talk(sock)
    held, address = held_port()
    talk.ask("publish", fds=(held.fileno(),), ports=[{"protocol": "tcp", "address": HOST, "port": 1}])
    held.close()
    talk.ask("gate")
    answer = talk.ask("create")
    if "error" not in answer:
        answer = talk.ask("start")
    assert "error" in answer
    socket.create_server(address).close()


@pytest.mark.usefixtures("fork_server")
def test_a_flood_on_a_port_does_not_hold_up_the_log(tmp_path: Path, rootfs: Path) -> None:
    lines = 20000
    with listening() as server, contextlib.ExitStack() as stack:
        sock, address = held_port()
        script = f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done"
        done = threading.Event()

        def flood(client: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while not done.is_set():
                    client.sendall(bytes(1 << 16))

        def swallow(served: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while served.recv(1 << 18):
                    pass

        talk = start(tmp_path, rootfs, "sleep 0.3; " + script, (sock, *server.getsockname()))
        threads = []
        for _ in range(12):
            client = stack.enter_context(connect(address))
            served = stack.enter_context(server.accept()[0])
            threads.append(threading.Thread(target=flood, args=(client,)))
            threads.append(threading.Thread(target=swallow, args=(served,)))
        for thread in threads:
            thread.start()
        assert talk.exit()["exit_code"] == 0
        done.set()
        assert (tmp_path / "log").read_bytes().count(b"\n") == lines
        for pending in (client, served):
            pending.close()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("fork_server")
def test_what_cannot_be_published_is_refused_by_a_sentence(tmp_path: Path, rootfs: Path) -> None:
    talk = start(tmp_path, rootfs, "sleep 1000")
    port = {"protocol": "tcp", "address": HOST, "port": 80}
    assert talk.ask("publish", ports=[port])["error"] == "publish needs a socket for each port"
    for wrong in ({**port, "address": "nowhere"}, {**port, "protocol": "icmp"}):
        held, address = held_port()
        assert "error" in talk.ask("publish", fds=(held.fileno(),), ports=[wrong])
        held.close()
        socket.create_server(address).close()
    talk.ask("kill", signal=9)
    talk.exit()


def test_a_monitor_without_ports_does_not_have_the_relay_in_memory() -> None:
    program = "import sys; import dockerd_py.monitor.forkserver; print('dockerd_py.monitor.relay' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)
    assert done.stdout == b"False\n"
