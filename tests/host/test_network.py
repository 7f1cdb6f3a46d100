"""Networks on a booted host, as its users have them: with the package's own daemon, units and firewall."""

from __future__ import annotations

import concurrent.futures
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hosttools import Api, Cli, main_pid, rules, run, systemctl, wait_until

BRIDGE = "pydocker0"
HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
DNS = "pydockerd-dns.service"

WHO_ASKS = f"""
import socket
with socket.create_server(("{OUTSIDE}", 7777)) as server:
    print("ready", flush=True)
    while True:
        connection, asker = server.accept()
        with connection:
            connection.sendall(asker[0].encode())
"""

NAME_SERVER = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as server:
    server.bind(("127.0.0.1", 53))
    print("ready", flush=True)
    while True:
        question, asker = server.recvfrom(512)
        end = 12
        while question[end]:
            end += 1 + question[end]
        question = question[: end + 5]
        answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton("203.0.113.7")
        is_address = question[-3] == 1
        counts = b"\\0\\1" + bytes([0, is_address]) + bytes(4)
        server.sendto(question[:2] + b"\\x81\\x80" + counts + question[12:] + answer * is_address, asker)
"""
"""On the host's loopback; every name has one address."""

_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


@pytest.fixture(scope="module")
def outside() -> Iterator[str]:
    """A network namespace beside the host: its name.  It knows no way to what is behind the host."""
    run("ip", "netns", "add", "outside")
    run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", "outside")
    for place, address in (("", HOST), ("outside", OUTSIDE)):
        ip = ["ip", *(["-n", place] if place else [])]
        run(*ip, "address", "add", f"{address}/24", "dev", "cable")
        run(*ip, "link", "set", "cable", "up")
    run("ip", "route", "add", "default", "via", OUTSIDE)
    yield "outside"
    run("ip", "link", "delete", "cable")
    run("ip", "netns", "delete", "outside")


def inside(place: str, work: Callable[[], T]) -> T:
    """Call something in a named network namespace; the sockets that it makes stay there."""

    def act() -> T:
        with open(f"/run/netns/{place}") as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), _CLONE_NEWNET) == 0
        return work()

    with concurrent.futures.ThreadPoolExecutor(1) as thread:  # whose namespace is its own, and ends with it
        return thread.submit(act).result()


def connected(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=10)


def page(address: str, port: int) -> bytes:
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", "/hostname")
        return connection.getresponse().read().strip()
    finally:
        connection.close()


def echoes(connection: socket.socket, text: bytes) -> bool:
    connection.sendall(text)
    return connection.recv(100) == text


def link(name: str) -> Any:
    return json.loads(run("ip", "-json", "address", "show", "dev", name).stdout)[0]


def test_the_default_bridge_is_there_once_the_service_is_up(api: Api) -> None:
    found = link(BRIDGE)
    assert "UP" in found["flags"]
    address = next(one for one in found["addr_info"] if one["family"] == "inet")
    network = api.get("/networks/bridge").json
    assert network["Options"]["com.docker.network.bridge.name"] == BRIDGE
    assert network["IPAM"]["Config"][0]["Gateway"] == address["local"]


def test_a_container_reaches_the_host_and_with_the_hosts_address_the_world(
    docker: Cli, busybox: str, outside: str
) -> None:
    assert "1 packets received" in docker.out("run", "--rm", busybox, "ping", "-c1", "-w5", HOST)
    argv = ["ip", "netns", "exec", outside, "python3", "-c", WHO_ASKS]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        assert docker.out("run", "--rm", busybox, "nc", OUTSIDE, "7777") == HOST
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def local_name_server() -> Iterator[None]:
    """The host asks a server of its own, as with dnsmasq or unbound."""
    path = Path("/etc/resolv.conf")
    before = path.read_bytes() if path.exists() else None
    server = subprocess.Popen(["python3", "-c", NAME_SERVER], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        path.write_text("search example.org\nnameserver 127.0.0.1\n")
        yield
    finally:
        server.kill()
        server.communicate()
        path.unlink() if before is None else path.write_bytes(before)


def test_a_name_server_on_the_hosts_loopback_serves_the_default_bridge_too(
    docker: Cli, busybox: str, local_name_server: None
) -> None:
    def found(container: str) -> str:
        return docker.out("exec", container, "nslookup", "far.example")

    container = docker.out("run", "-d", busybox, "sleep", "1000")
    settings = docker.out("exec", container, "cat", "/etc/resolv.conf")
    assert "nameserver 127.0.0.11\n" in settings
    assert "search example.org\n" in settings
    assert "203.0.113.7" in found(container)
    systemctl("restart", "pydockerd.service")
    assert "203.0.113.7" in found(container)
    docker("network", "create", "wired")
    docker("network", "connect", "wired", container)
    assert "203.0.113.7" in docker.out("run", "--rm", "--net", "wired", busybox, "nslookup", "far.example")
    docker("network", "disconnect", "wired", container)
    docker("network", "rm", "wired")
    assert "203.0.113.7" in found(container)
    other = docker.out("run", "--rm", "--dns", "192.0.2.53", busybox, "cat", "/etc/resolv.conf")
    assert "nameserver 192.0.2.53" in other
    assert "127.0.0.11" not in other


def test_containers_ask_the_name_servers_that_the_host_has_now(
    docker: Cli, busybox: str, local_name_server: None
) -> None:
    path = Path("/etc/resolv.conf")
    right = path.read_text()
    path.write_text("nameserver 127.0.0.3\n")  # where nobody is
    docker("network", "create", "wired")
    first, second = (docker.out("run", "-d", "--net", "wired", busybox, "sleep", "1000") for _ in range(2))
    path.write_text(right)
    systemctl("reload", "pydockerd.service")
    assert "203.0.113.7" in docker.out("exec", first, "nslookup", "far.example")
    path.write_text("nameserver 127.0.0.3\n")
    systemctl("reload", "pydockerd.service")
    path.write_text(right)
    docker("run", "--rm", "--net", "wired", busybox, "true")  # the start looks again, for all
    assert "203.0.113.7" in docker.out("exec", second, "nslookup", "far.example")
    docker("rm", "-f", first, second)
    docker("network", "rm", "wired")


def test_a_published_port_is_reached_from_outside_and_from_the_host(docker: Cli, busybox: str, outside: str) -> None:
    web = docker.out("run", "-d", "-p", "8080:80", busybox, "httpd", "-f", "-p", "80", "-h", "/etc")
    name = web[:12].encode()
    wait_until(lambda: page("127.0.0.1", 8080) == name, 10, "the container's page")
    assert page(HOST, 8080) == name
    assert inside(outside, lambda: page(HOST, 8080)) == name
    assert page("::1", 8080) == name
    docker("rm", "-f", web)
    with pytest.raises(ConnectionRefusedError):
        connected("127.0.0.1", 8080)


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_connection_through_a_published_port_outlives_the_daemon(
    docker: Cli, api: Api, busybox: str, outside: str, how: str
) -> None:
    echo = docker.out("run", "-d", "-p", "8081:80", busybox, "nc", "-ll", "-p", "80", "-e", "cat")
    wait_until(lambda: echoes(connected(HOST, 8081), b"up"), 10, "the container answers")
    far = inside(outside, lambda: connected(HOST, 8081))
    near = connected("127.0.0.1", 8081)
    with far, near:
        assert echoes(far, b"before")
        assert echoes(near, b"before")
        before, shown = rules(), docker.out("port", echo)
        if how == "kill":
            os.kill(main_pid(), signal.SIGKILL)
            assert echoes(far, b"without a daemon")
            assert echoes(near, b"without a daemon")
        else:
            systemctl("restart", "pydockerd.service")
        wait_until(lambda: api.get("/_ping").status == 200, 30, "the daemon answers again")
        assert echoes(far, b"after")
        assert echoes(near, b"after")
    assert docker.out("port", echo) == shown
    assert inside(outside, lambda: echoes(connected(HOST, 8081), b"again"))
    assert len(rules().splitlines()) == len(before.splitlines())
    docker("rm", "-f", echo)


def test_names_are_answered_through_a_restart_of_the_daemon(docker: Cli, api: Api, busybox: str) -> None:
    docker("network", "create", "named")
    asking = "i=0; while [ $i -lt 100 ]; do nslookup peer >/dev/null 2>&1 || echo lost; i=$((i+1)); sleep 0.02; done"
    try:
        docker("run", "-d", "--network", "named", "--name", "peer", busybox, "sleep", "600")
        asks = docker.out("run", "-d", "--network", "named", busybox, "sh", "-c", f"{asking}; nslookup peer")
        names = main_pid(DNS)
        assert names
        systemctl("restart", "pydockerd.service")
        wait_until(lambda: api.get("/_ping").status == 200, 30, "the daemon answers again")
        assert main_pid(DNS) == names
        assert docker.out("wait", asks) == "0"
        said = docker.out("logs", asks)
        assert "lost" not in said
        assert api.get("/containers/peer/json").json["NetworkSettings"]["Networks"]["named"]["IPAddress"] in said
    finally:
        docker("rm", "-f", "peer", check=False)
        for container in docker.out("ps", "-aq", "--filter", "network=named").split():
            docker("rm", "-f", container)
        docker("network", "rm", "named")


def test_a_removed_network_and_its_containers_leave_nothing(docker: Cli, busybox: str) -> None:
    links, before = sorted(os.listdir("/sys/class/net")), rules()
    docker("network", "create", "passing")
    container = docker.out("run", "-d", "--network", "passing", "-p", "8082:80", busybox, "sleep", "600")
    assert len(os.listdir("/sys/class/net")) == len(links) + 2
    assert rules() != before
    docker("rm", "-f", container)
    docker("network", "rm", "passing")
    wait_until(lambda: sorted(os.listdir("/sys/class/net")) == links, 10, "the interfaces are what they were before")
    wait_until(lambda: rules() == before, 10, "the rules are what they were before")


def test_a_flush_by_the_administrator_is_repaired_by_a_reload(docker: Cli, busybox: str, outside: str) -> None:
    web = docker.out("run", "-d", "-p", "8083:80", busybox, "httpd", "-f", "-p", "80", "-h", "/etc")
    name = web[:12].encode()
    wait_until(lambda: inside(outside, lambda: page(HOST, 8083)) == name, 10, "the container's page")
    before = rules()
    run("nft", "flush", "ruleset")
    assert rules() != before
    systemctl("reload", "pydockerd.service")
    wait_until(lambda: len(rules().splitlines()) == len(before.splitlines()), 10, "the rules are there again")
    assert inside(outside, lambda: page(HOST, 8083)) == name
    docker("rm", "-f", web)
