"""The operations on images and containers that are killed at each step.

Each needs the image ``base`` at most.  All names that a scenario makes are its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import execs
from daemons import Daemon, until
from store_house import directory, hardlink, member, symlink, tar
from wire import Reply

from faults.harness import Failed, Scenario

BASE = tar(directory("etc"), member("etc/motd", data=b"hello\n"), symlink("motd", "etc/motd"))
MIDDLE = tar(directory("opt"), member("opt/tool", data=b"tool" * 300), hardlink("opt/same", "opt/tool"))
TOP = tar(member("opt/.wh.tool"), member("etc/motd", data=b"bye\n"))
CHANGES = tar(directory("srv"), member("srv/new", data=b"new\n"), member("etc/motd", data=b"changed\n"))


def _archive(*layers: bytes) -> bytes:
    """What ``docker save`` would write of an image named loaded:v1."""
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    files = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": name, "RepoTags": ["loaded:v1"], "Layers": files}]).encode()
    contents = [member(file, data=layer) for file, layer in zip(files, layers, strict=True)]
    return tar(*contents, member(name, data=config), member("manifest.json", data=manifest))


ARCHIVE = _archive(BASE, MIDDLE, TOP)


# What they are made of


def _import(daemon: Daemon, name: str, content: bytes) -> None:
    reply = daemon.post(f"/images/create?fromSrc=-&repo={name}", content)
    assert reply.status == 200, reply.data
    assert b'"error"' not in reply.data, reply.data


def _load(daemon: Daemon) -> None:
    reply = daemon.post("/images/load", ARCHIVE)
    assert reply.status == 200, reply.data
    assert b'"error"' not in reply.data, reply.data


def _create(daemon: Daemon, name: str, image: str = "base") -> None:
    reply = daemon.post(f"/containers/create?name={name}", {"Image": image, "Cmd": ["/true"]})
    assert reply.status == 201, reply.data


def _create_changed(daemon: Daemon, name: str) -> None:
    _create(daemon, name)
    reply = daemon.call("PUT", f"/containers/{name}/archive?path=/", CHANGES)
    assert reply.status == 200, reply.data


def remove(daemon: Daemon, path: str) -> None:
    reply = daemon.delete(path)
    assert reply.status in (200, 204), reply.data


def there(daemon: Daemon, path: str) -> bool:
    status = daemon.get(f"{path}/json").status
    assert status in (200, 404)
    return status == 200


def _absent(daemon: Daemon, *paths: str) -> None:
    for path in paths:
        if there(daemon, path):
            remove(daemon, path)


def _base(daemon: Daemon) -> None:
    if not there(daemon, "/images/base"):
        _import(daemon, "base", BASE)


def _read(daemon: Daemon, container: str, path: str) -> bytes:
    """A file's contents, b"" where there is none."""
    reply = daemon.get(f"/containers/{container}/archive?path={path}")
    if reply.status == 404:
        return b""
    assert reply.status == 200, reply.data
    with tarfile.open(fileobj=io.BytesIO(reply.data)) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        assert file is not None
        return file.read()


def _image_reads(daemon: Daemon, image: str, files: dict[str, bytes]) -> None:
    _create(daemon, "reader", image)
    assert {path: _read(daemon, "reader", path) for path in files} == files
    remove(daemon, "/containers/reader")


# Import


def _arrange_import(daemon: Daemon) -> None:
    _base(daemon)
    _absent(daemon, "/images/imported")


def _check_import(daemon: Daemon, done: bool) -> None:
    assert there(daemon, "/images/imported") == done
    _image_reads(daemon, "base", {"/etc/motd": b"hello\n"})
    if done:
        _image_reads(daemon, "imported", {"/opt/same": b"tool" * 300})


# Load


def _arrange_load(daemon: Daemon) -> None:
    _base(daemon)
    _absent(daemon, "/images/loaded:v1")


def _check_load(daemon: Daemon, done: bool) -> None:
    assert there(daemon, "/images/loaded:v1") == done
    if done:
        _image_reads(daemon, "loaded:v1", {"/opt/same": b"tool" * 300, "/etc/motd": b"bye\n"})


# Commit


def _arrange_commit(daemon: Daemon) -> None:
    _base(daemon)
    _absent(daemon, "/images/committed")
    if not there(daemon, "/containers/changed"):
        _create_changed(daemon, "changed")


def _commit(daemon: Daemon) -> None:
    reply = daemon.post("/commit?container=changed&repo=committed")
    assert reply.status == 201, reply.data


def _check_commit(daemon: Daemon, done: bool) -> None:
    assert there(daemon, "/images/committed") == done
    assert _read(daemon, "changed", "/srv/new") == b"new\n"
    if done:
        _image_reads(daemon, "committed", {"/srv/new": b"new\n", "/etc/motd": b"changed\n"})


# Commit of a container that runs, and is frozen meanwhile


def _arrange_frozen(daemon: Daemon) -> None:
    _absent(daemon, "/images/frozen")
    if not there(daemon, "/containers/running"):
        daemon.import_busybox()
        daemon.run_detached("sh", "-c", "echo news >/news; sleep 100000", name="running")
        until(lambda: _read(daemon, "running", "/news") == b"news\n")


def _commit_running(daemon: Daemon) -> None:
    reply = daemon.post("/commit?container=running&repo=frozen")
    assert reply.status == 201, reply.data


def _check_frozen(daemon: Daemon, done: bool) -> None:
    assert there(daemon, "/images/frozen") == done
    assert daemon.inspect("running")["State"]["Running"]
    scope = f"container-{daemon.inspect('running')['Id']}.scope"
    # os.walk, as it passes over groups that vanish meanwhile.
    groups = [Path(top) for top, _, _ in os.walk("/sys/fs/cgroup") if top.endswith(scope)]
    files = [path / name for path in groups for name in ("cgroup.freeze", "freezer.state")]
    states = {file.read_text().strip() for file in files if file.exists()}
    assert states
    assert states <= {"0", "THAWED"}


# Removal of an image


def _arrange_rmi(daemon: Daemon) -> None:
    _base(daemon)
    if not there(daemon, "/images/loaded:v1"):
        _load(daemon)


def _check_rmi(daemon: Daemon, done: bool) -> None:
    _check_load(daemon, not done)
    _image_reads(daemon, "base", {"/etc/motd": b"hello\n"})


# Containers


def _arrange_create(daemon: Daemon) -> None:
    _base(daemon)
    _absent(daemon, "/containers/made")


def _check_create(daemon: Daemon, done: bool) -> None:
    assert there(daemon, "/containers/made") == done
    if done:
        assert _read(daemon, "made", "/etc/motd") == b"hello\n"


def _arrange_remove(daemon: Daemon) -> None:
    _base(daemon)
    if not there(daemon, "/containers/changed"):
        _create_changed(daemon, "changed")


def _check_remove(daemon: Daemon, done: bool) -> None:
    assert there(daemon, "/containers/changed") != done
    if not done:
        assert _read(daemon, "changed", "/srv/new") == b"new\n"


# A container's process: it is up when it has said so, and ends with 7 by SIGTERM and with 3 by SIGUSR1

WORK = "trap 'exit 7' TERM; trap 'exit 3' USR1; echo up; while :; do sleep 1000 & wait; done"


def running(daemon: Daemon, name: str, **host: Any) -> None:
    """See to it that it is there and runs."""
    if not there(daemon, f"/containers/{name}"):
        daemon.import_busybox()
        daemon.create("sh", "-c", WORK, name=name, host=host)
    reply = daemon.post(f"/containers/{name}/start")
    assert reply.status in (204, 304), reply.data
    up(daemon, name)


def up(daemon: Daemon, name: str) -> None:
    started = daemon.inspect(name)["State"]["StartedAt"]
    until(lambda: b"up" in daemon.logs(name, f"stdout=1&tail=1&since={started}"))


def stopped(daemon: Daemon, name: str) -> None:
    reply = daemon.post(f"/containers/{name}/stop")
    assert reply.status in (204, 304), reply.data


def ask(daemon: Daemon, path: str, body: object = None, *, good: tuple[int, ...]) -> Reply:
    reply = daemon.post(path, body)
    if reply.status not in good:
        raise Failed(f"{path}: {reply.data!r}")
    return reply


def ended_truly(daemon: Daemon, name: str, *codes: int) -> None:
    """With one of these exit codes, or for a reason that is said."""
    state = daemon.inspect(name)["State"]
    assert state["ExitCode"] in codes or state["Error"], state


def works(daemon: Daemon, name: str) -> None:
    """What runs takes an exec and a signal, and its exit code comes through."""
    up(daemon, name)
    assert execs.run(daemon, name, "sh", "-c", "exit 5").exit_code == 5
    stopped(daemon, name)
    state = daemon.inspect(name)["State"]
    assert (state["Running"], state["ExitCode"], state["Error"]) == (False, 7, "")


# Start


def _arrange_start(daemon: Daemon) -> None:
    if not there(daemon, "/containers/begins") or daemon.inspect("begins")["State"]["ExitCode"] != 7:
        running(daemon, "begins")
    stopped(daemon, "begins")


def _begin(daemon: Daemon) -> None:
    ask(daemon, "/containers/begins/start", good=(204,))


def _check_start(daemon: Daemon, done: bool) -> None:
    if daemon.inspect("begins")["State"]["Running"]:
        assert done
        works(daemon, "begins")
    else:
        ended_truly(daemon, "begins", 7, 137)


# Stop


def _end(daemon: Daemon) -> None:
    ask(daemon, "/containers/ends/stop", good=(204,))


def _check_stop(daemon: Daemon, done: bool) -> None:
    if done:
        ended_truly(daemon, "ends", 7)
    else:
        works(daemon, "ends")


# Exec


def _arrange_exec(daemon: Daemon) -> None:
    running(daemon, "inside")
    assert execs.run(daemon, "inside", "rm", "-rf", "/done").exit_code == 0
    (daemon.directory / "exec").write_text("none")


def _exec(daemon: Daemon) -> None:
    asked = {"Cmd": ["sh", "-c", "mkdir /done; exit 3"], "AttachStdout": True}
    made = ask(daemon, "/containers/inside/exec", asked, good=(201,)).json["Id"]
    (daemon.directory / "exec").write_text(made)
    ask(daemon, f"/exec/{made}/start", {"Detach": False, "Tty": False}, good=(200,))
    reply = daemon.get(f"/exec/{made}/json")
    if reply.json["ExitCode"] != 3:
        raise Failed(reply.data)


def _check_exec(daemon: Daemon, done: bool) -> None:
    made = (daemon.directory / "exec").read_text()
    until(lambda: not daemon.get(f"/exec/{made}/json").json.get("Running"))  # it may go on without the daemon
    runs = daemon.inspect("inside")["State"]["Running"]
    if runs:
        done = execs.run(daemon, "inside", "test", "-d", "/done").exit_code == 0
    reply = daemon.get(f"/exec/{made}/json")
    if reply.status == 200:  # it is remembered
        codes = (3, 126, 137) if done else (None, 126, 137)  # it could begin before its runtime was killed
        assert reply.json["ExitCode"] in codes, reply.json
    if runs:
        assert execs.run(daemon, "inside", "sh", "-c", "exit 5").exit_code == 5
    else:
        ended_truly(daemon, "inside")


# Restart by a policy


def _end_and_come_back(daemon: Daemon) -> None:
    before = daemon.inspect("returns")["State"]["StartedAt"]
    ask(daemon, "/containers/returns/kill?signal=USR1", good=(204,))
    until(lambda: (state := daemon.inspect("returns")["State"])["Running"] and state["StartedAt"] != before)


def _check_return(daemon: Daemon, done: bool) -> None:
    up(daemon, "returns")


SCENARIOS = (
    Scenario("import", _arrange_import, lambda daemon: _import(daemon, "imported", MIDDLE), _check_import),
    Scenario("load", _arrange_load, _load, _check_load),
    Scenario("commit", _arrange_commit, _commit, _check_commit),
    Scenario("commit-running", _arrange_frozen, _commit_running, _check_frozen),
    Scenario("rmi", _arrange_rmi, lambda daemon: remove(daemon, "/images/loaded:v1"), _check_rmi),
    Scenario("create", _arrange_create, lambda daemon: _create(daemon, "made"), _check_create),
    Scenario("remove", _arrange_remove, lambda daemon: remove(daemon, "/containers/changed"), _check_remove),
    Scenario("start", _arrange_start, _begin, _check_start, of_container=True),
    Scenario("stop", lambda daemon: running(daemon, "ends"), _end, _check_stop, of_container=True),
    Scenario("exec", _arrange_exec, _exec, _check_exec, of_container=True),
    Scenario(
        "restart",
        lambda daemon: running(daemon, "returns", RestartPolicy={"Name": "always"}),
        _end_and_come_back,
        _check_return,
        of_container=True,
    ),
)
