"""The fork server: a small process that has imported what a monitor needs, and forks one for each request.

A connection brings one message ``{"op": "monitor", "version": 1, "config": {...}}`` and becomes the control
connection of the monitor that is forked for it.  The fork server keeps nothing about its children: they outlive it.

``{"op": "renew", "code": ...}`` comes from each daemon that starts.  After an upgrade the code (`stamp.of_code`) is not
the one that runs here: the fork server then becomes the new program, in the same process, so that its monitors stay its
children and its service stays active.  The answer is ``{"renewed": false}``, or the end of the connection.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
from typing import NoReturn

from dockerd_py import wire
from dockerd_py.monitor import PROTOCOL_VERSION, stamp, supervisor

REQUEST_TIMEOUT = 5.0
CODE = stamp.of_code()


def serve(path: str, *, lifeline: int | None = None) -> None:
    """Serve until SIGTERM, or until ``lifeline`` (the read end of a pipe that a daemon holds) reports its end."""
    if lifeline is not None and select.select([lifeline], [], [], 0)[0]:
        return  # killed already, and the next daemon's fork server may be at the path
    listener = wire.bind(path)
    own = os.stat(path).st_ino
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the monitors
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each client of a container's takes one
    _notify_ready()
    gc.freeze()
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if lifeline is not None:
        poll.register(lifeline, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == lifeline:
                if os.path.exists(path) and os.stat(path).st_ino == own:  # else it is the next one's
                    os.unlink(path)
                return
            connection, _ = listener.accept()
            with connection:
                _answer(listener, connection, lifeline)


def _answer(listener: socket.socket, connection: socket.socket, lifeline: int | None) -> None:
    connection.settimeout(REQUEST_TIMEOUT)
    try:
        if wire.peer_uid(connection) != os.geteuid():
            return
        message, fds = wire.receive(connection)
        wire.close_all(fds)
        if message is None:
            return
        if message.get("op") == "renew":
            if message["code"] == CODE:
                wire.send(connection, {"renewed": False})
                return
            _become_new(lifeline)
        if message.get("op") != "monitor" or message.get("version") != PROTOCOL_VERSION:
            wire.send(connection, {"error": f"this fork server speaks version {PROTOCOL_VERSION} only"})
            return
        config = supervisor.Config(**message["config"])
        if os.fork() != 0:
            return
    except (OSError, wire.ProtocolError, KeyError, TypeError) as error:
        print(f"pydockerd-monitor: a request failed: {error}", file=sys.stderr, flush=True)
        try:
            wire.send(connection, {"error": str(error)})
        except OSError:
            pass  # it is gone; said above
        return
    code = 1
    try:
        listener.close()
        if lifeline is not None:
            os.close(lifeline)
        os.setsid()
        supervisor.Supervisor(config, connection).run()
        code = 0
    except BaseException as error:  # noqa: BLE001 - a child must never return into the fork server's loop
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _become_new(lifeline: int | None) -> NoReturn:
    """Run the program that is installed now.  Its socket takes the place of ours; who comes in between tries again."""
    print("pydockerd-monitor: going on as the program that was installed meanwhile", file=sys.stderr, flush=True)
    if lifeline is not None:
        os.set_inheritable(lifeline, True)
    os.execv(sys.executable, sys.orig_argv)


def _notify_ready() -> None:
    """sd_notify(3), by hand: the units package is not for this process."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(b"READY=1")
