"""The operations on networks that are killed at each step: connect, publish, release, and a network's own.

Their daemon has a host of its own, so that all that is left over there is its own doing.
"""

from __future__ import annotations

from daemons import Daemon
from execs import run
from net_house import HOST, HOST6, NetDaemon, is_reached, tcp_answer, telling_who_asks, udp_answer

from faults.harness import Failed, Scenario
from faults.scenarios import WORK, ask, ended_truly, running, stopped, there, up, works

_NET = "wired"
_PORT = 8080
_PORTS = {port: [{"HostPort": str(_PORT)}] for port in ("80/tcp", "80/udp")}


def _is_there(daemon: Daemon, network: str) -> bool:
    status = daemon.get(f"/networks/{network}").status
    assert status in (200, 404)
    return status == 200


def _make(daemon: Daemon, network: str) -> None:
    if not _is_there(daemon, network):
        _create(daemon, network)


def _create(daemon: Daemon, network: str) -> None:
    ask(daemon, "/networks/create", {"Name": network, "CheckDuplicate": True}, good=(201,))


def _remove(daemon: Daemon, network: str) -> None:
    reply = daemon.delete(f"/networks/{network}")
    if reply.status != 204:
        raise Failed(reply.data)


def _on(daemon: Daemon, container: str) -> set[str]:
    networks: dict[str, object] = daemon.inspect(container)["NetworkSettings"]["Networks"]
    return set(networks)


def _gateway(daemon: Daemon, network: str) -> str:
    gateway: str = daemon.get(f"/networks/{network}").json["IPAM"]["Config"][0]["Gateway"]
    return gateway.partition("/")[0]


def _reaches(daemon: Daemon, container: str, address: str) -> bool:
    return run(daemon, container, "ping", "-c", "1", "-w", "2", address).exit_code == 0


# Connect


def _arrange_connect(daemon: Daemon) -> None:
    _make(daemon, _NET)
    running(daemon, "joins", NetworkMode="bridge")
    if _NET in _on(daemon, "joins"):
        ask(daemon, f"/networks/{_NET}/disconnect", {"Container": "joins"}, good=(200, 204))


def _connect(daemon: Daemon) -> None:
    ask(daemon, f"/networks/{_NET}/connect", {"Container": "joins"}, good=(200, 204))


def _check_connect(daemon: Daemon, done: bool) -> None:
    assert _on(daemon, "joins") == ({"bridge", _NET} if done else {"bridge"})
    if not daemon.inspect("joins")["State"]["Running"]:
        ended_truly(daemon, "joins")
        return
    assert _reaches(daemon, "joins", HOST)
    found = run(daemon, "joins", "ip", "address", "show", "dev", "eth1")
    assert (found.exit_code == 0) == done, found
    if done:
        assert _reaches(daemon, "joins", _gateway(daemon, _NET))
    works(daemon, "joins")


# The start of a container with published ports, and its end


def _serving(daemon: Daemon, name: str) -> None:
    _make(daemon, _NET)
    if not there(daemon, f"/containers/{name}"):
        daemon.import_busybox()
        daemon.create("sh", "-c", WORK, name=name, host={"NetworkMode": _NET, "PortBindings": _PORTS})
    running(daemon, name)


def _arrange_publish(daemon: Daemon) -> None:
    if not there(daemon, "/containers/serves") or daemon.inspect("serves")["State"]["ExitCode"] != 7:
        _serving(daemon, "serves")
    stopped(daemon, "serves")


def _answering(daemon: NetDaemon) -> list[str]:
    """From where the published ports are reached."""
    callers = ((daemon.outside, HOST), (daemon.outside, HOST6), (daemon.host, "127.0.0.1"), (daemon.host, "::1"))
    return [
        f"{answer.__name__} {address}"
        for answer in (tcp_answer, udp_answer)
        for caller, address in callers
        if is_reached(answer, caller, address, _PORT)
    ]


def _check_published(daemon: Daemon, name: str, done: bool) -> None:
    """done: it may run."""
    assert isinstance(daemon, NetDaemon)
    if daemon.inspect(name)["State"]["Running"]:
        assert done
        up(daemon, name)
        with daemon.within(name) as container, telling_who_asks(container, 80):
            assert len(found := _answering(daemon)) == 8, found
        assert _reaches(daemon, name, _gateway(daemon, _NET))
        works(daemon, name)
    else:
        ended_truly(daemon, name, 7, 137)
    assert _answering(daemon) == []


def _publish(daemon: Daemon) -> None:
    ask(daemon, "/containers/serves/start", good=(204,))


def _release(daemon: Daemon) -> None:
    ask(daemon, "/containers/leaves/stop", good=(204,))


# A network's creation and removal


def _arrange_make(daemon: Daemon) -> None:
    if not there(daemon, "/images/busybox"):
        daemon.import_busybox()
    if _is_there(daemon, "made"):
        _remove(daemon, "made")


def _check_make(daemon: Daemon, done: bool) -> None:
    assert _is_there(daemon, "made") == done
    if done:
        code, said = daemon.run_to_end("ping", "-c1", "-w2", _gateway(daemon, "made"), host={"NetworkMode": "made"})
        assert code == 0, said
        daemon.clear_containers()


def _arrange_unmake(daemon: Daemon) -> None:
    if not there(daemon, "/images/busybox"):
        daemon.import_busybox()
    _make(daemon, "made")
    _check_make(daemon, True)  # by which the name service runs


# A link's removal


def _arrange_unlink(daemon: Daemon) -> None:
    running(daemon, "target", NetworkMode="bridge")
    daemon.delete("/containers/linker?force=1")
    daemon.create("sh", "-c", WORK, name="linker", host={"NetworkMode": "bridge", "Links": ["target:alias"]})
    running(daemon, "linker")


def _unlink(daemon: Daemon) -> None:
    reply = daemon.delete("/containers/linker/alias?link=1")
    if reply.status != 204:
        raise Failed(reply.data)


def _check_unlink(daemon: Daemon, done: bool) -> None:
    assert there(daemon, "/containers/linker/alias") != done
    assert ("alias" in run(daemon, "linker", "cat", "/etc/hosts").text()) != done
    assert _reaches(daemon, "linker", HOST)


NET_SCENARIOS = (
    Scenario("connect", _arrange_connect, _connect, _check_connect, of_container=True),
    Scenario(
        "publish", _arrange_publish, _publish, lambda daemon, done: _check_published(daemon, "serves", done),
        of_container=True,
    ),
    Scenario(
        "release", lambda daemon: _serving(daemon, "leaves"), _release,
        lambda daemon, done: _check_published(daemon, "leaves", not done),
        of_container=True,
    ),
    Scenario("unlink", _arrange_unlink, _unlink, _check_unlink),
    Scenario("network-create", _arrange_make, lambda daemon: _create(daemon, "made"), _check_make),
    Scenario(
        "network-remove", _arrange_unmake, lambda daemon: _remove(daemon, "made"),
        lambda daemon, done: _check_make(daemon, not done),
    ),
)  # fmt: skip
