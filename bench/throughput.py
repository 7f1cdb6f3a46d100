#!/usr/bin/python3
"""What goes through a published port, beside what goes through a plain DNAT rule: throughput.py PROGRAMS


PROGRAMS is the directory of ours.
iperf3, from a network namespace outside to a container's, and to one that is plugged in just so by hand: a veth pair
on a bridge of its own, and one rule of iptables.  Also through the host's loopback address, where no rule is in the
way and the container's monitor relays.  All of it is in network namespaces of its own, and goes with them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from beside_dockerd import TOP, pydockerd, running
from peer_bench import import_tar

IN_NAMESPACES = "PYDOCKERD_BENCH_IN_NAMESPACES"
HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
PLAIN_GATEWAY, PLAIN = "10.231.0.1", "10.231.0.2"
PLAIN_PORT, PUBLISHED_PORT, SERVER_PORT = 5301, 5302, 5201


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    options = parser.parse_args()
    if not os.environ.get(IN_NAMESPACES):
        os.environ[IN_NAMESPACES] = "yes"
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvp(unshare[0], [*unshare, sys.executable, os.path.abspath(__file__), *sys.argv[1:]])
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pydockerd-bench-", dir="/var/tmp")))
        ip("link set lo up")
        outside = stack.enter_context(namespace("cable", f"{HOST}/24", f"{OUTSIDE}/24"))
        plain = stack.enter_context(namespace("plain", "", f"{PLAIN}/24"))
        plugged_by_hand(plain)
        daemon = stack.enter_context(running("pydockerd", pydockerd(options.programs, home), home))
        image = home / "busybox.tar"
        subprocess.run([TOP / "contrib" / "mkimage", "busybox", "--output", image], check=True)
        with image.open("rb") as body:
            import_tar(daemon, "busybox", body)
        bindings = {f"{SERVER_PORT}/tcp": [{"HostPort": str(PUBLISHED_PORT)}]}
        container = daemon.create("busybox", ["sleep", "6000"], PortBindings=bindings)
        stack.callback(daemon.call, "DELETE", f"/containers/{container}?force=1")
        daemon.call("POST", f"/containers/{container}/start")
        inside = daemon.call("GET", f"/containers/{container}/json")["State"]["Pid"]
        for place in (plain, inside):
            stack.enter_context(serving(place))
        report(outside, options.rounds, options.seconds)
    return 0


def report(outside: int, rounds: int, seconds: int) -> None:
    rows = {
        "plain DNAT rule": (outside, HOST, PLAIN_PORT),
        "published port": (outside, HOST, PUBLISHED_PORT),
        "published port, from the host's loopback": (os.getpid(), "127.0.0.1", PUBLISHED_PORT),
    }
    for direction, more in (("to the container", ()), ("from the container", ("--reverse",))):
        found: dict[str, list[float]] = {row: [] for row in rows}
        for _ in range(rounds):
            for row, (place, address, port) in rows.items():
                found[row].append(rate(place, address, port, seconds, more))
        base = statistics.median(found["plain DNAT rule"])
        for row, rates in found.items():
            median = statistics.median(rates)
            spread = f"{min(rates) / 1e9:.1f} to {max(rates) / 1e9:.1f}"
            print(f"{row:42} {direction:20} {median / 1e9:6.1f} Gbit/s ({spread})  x{median / base:.2f}", flush=True)


def rate(place: int, address: str, port: int, seconds: int, more: Sequence[str]) -> float:
    """Bits per second, as the receiver has seen them."""
    argv = ["iperf3", "--json", "--client", address, "--port", str(port), "--time", str(seconds), "--omit", "1", *more]
    done = subprocess.run([*entering(place), *argv], capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    if done.returncode != 0:
        raise RuntimeError(f"iperf3 at {address}:{port}: {result.get('error')}")
    received: float = result["end"]["sum_received"]["bits_per_second"]
    return received


@contextmanager
def namespace(interface: str, ours: str, theirs: str) -> Iterator[int]:
    """A network namespace at the other end of a cable; the pid of a process in it."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{process.pid}/ns/net") == own:
            time.sleep(0.01)
        ip(f"link add {interface} type veth peer name eth0 netns {process.pid}")
        ip(f"link set {interface} up")
        if ours:
            ip(f"address add {ours} dev {interface}")
        ip("link set lo up", process.pid)
        ip("link set eth0 up", process.pid)
        ip(f"address add {theirs} dev eth0", process.pid)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def plugged_by_hand(place: int) -> None:
    ip("link add plain-bridge type bridge")
    ip("link set plain-bridge up")
    ip(f"address add {PLAIN_GATEWAY}/24 dev plain-bridge")
    ip("link set plain master plain-bridge")
    ip(f"route add default via {PLAIN_GATEWAY}", place)
    rule = f"-t nat -A PREROUTING -p tcp --dport {PLAIN_PORT} -j DNAT --to-destination {PLAIN}:{SERVER_PORT}"
    subprocess.run(["iptables", *rule.split()], check=True)


@contextmanager
def serving(place: int) -> Iterator[None]:
    argv = [*entering(place), "iperf3", "--server", "--port", str(SERVER_PORT)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


def entering(place: int) -> list[str]:
    return ["nsenter", "--net", f"--target={place}"]


def ip(command: str, place: int = 0) -> None:
    subprocess.run([*(entering(place) if place else []), "ip", *command.split()], check=True)


if __name__ == "__main__":
    sys.exit(main())
