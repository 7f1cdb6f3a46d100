"""``pydockerd``: the program.

The sockets are open before anything large is imported, so a client that comes early waits instead of failing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from dockerd_py import config as settings
from dockerd_py.config import Config
from dockerd_py.daemon.listeners import Listeners
from dockerd_py.daemon.pidfile import PidFile
from dockerd_py.errors import ConfigError, PydockerdError
from dockerd_py.flags import HelpRequested
from dockerd_py.units.notify import Notifier
from dockerd_py.version import VERSION

if TYPE_CHECKING:
    from dockerd_py.engine.engine import Engine

log = logging.getLogger("pydockerd")

M_ARENA_MAX = -8  # malloc.h

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def main() -> int:
    """The entry point: 0 after a stop that was asked for, 2 for a wrong command line, 1 for any other failure."""
    if sys.argv[1:2] == ["fsck"]:
        from dockerd_py.daemon import fsck

        return fsck.main(sys.argv[2:])
    if sys.argv[1:2] == ["unplug"]:
        from dockerd_py.daemon import unplug

        return unplug.main(sys.argv[2:])
    try:
        parsed = settings.parse(sys.argv[1:])
        if parsed.boolean("version"):
            print(f"pydockerd version {VERSION}")
            return 0
        config = settings.load(parsed)
    except HelpRequested:
        print(settings.USAGE)
        return 0
    except ConfigError as error:
        print(f"pydockerd: {error}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("pydockerd: it needs root: use sudo, or systemctl start pydockerd", file=sys.stderr)
        return 1
    _share_arenas()
    _set_up_log(config)
    notifier = Notifier()
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)
    os.umask(0o022)
    pidfile = PidFile(config.pidfile) if config.pidfile is not None else None
    listeners = Listeners()
    try:
        if pidfile is not None:
            pidfile.acquire()
        listeners.open(config)
        return asyncio.run(_run(config, listeners, notifier))
    except PydockerdError as error:
        log.critical("%s", error)
        return 1
    finally:
        listeners.remove_files()
        if pidfile is not None:
            pidfile.release()


async def _run(config: Config, listeners: Listeners, notifier: Notifier) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: log.info("not ready yet: nothing to reload"))

    from dockerd_py.api.server import ApiServer
    from dockerd_py.dbus.service import BusService
    from dockerd_py.engine.engine import Engine

    engine = await Engine.open(config)
    api = ApiServer(engine)
    bus = BusService()
    try:
        await api.start(listeners.sockets)
        if config.is_default_instance:
            await bus.start(engine)
        reload = Reload(engine)
        loop.add_signal_handler(signal.SIGHUP, reload.ask)
        notifier.ready(_status(engine))
        log.info("pydockerd %s is ready", VERSION)
        await _until(stopped, notifier)
        notifier.stopping()
        log.info("stopping; containers go on running")
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        await bus.stop()
        await api.stop()
        await engine.close()
    return 0


class Reload:
    """One at a time, and once more if it was asked for meanwhile."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def ask(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._again:
            self._again = False
            try:
                await self._engine.reload()
            except PydockerdError as error:
                log.error("reload: %s", error)
            else:
                log.info("reloaded: bridges and firewall are as they should be")


async def _until(stopped: asyncio.Event, notifier: Notifier) -> None:
    """Wait for the end, with a sign of life for the service manager's watchdog now and then."""
    while not stopped.is_set():
        notifier.watchdog()
        try:
            await asyncio.wait_for(stopped.wait(), notifier.watchdog_interval)
        except asyncio.TimeoutError:
            continue


def _share_arenas() -> None:
    """Have all threads take memory from two places: mallopt(3) gives each its own, which keeps what it needed once.

    They hold Python's lock most of the time anyway.
    """
    with contextlib.suppress(AttributeError):  # a C library that has no such thing
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _status(engine: Engine) -> str:
    running = len(engine.containers.list())
    return f"{running} containers running, {len(engine.images)} images"


def _set_up_log(config: Config) -> None:
    """To standard error: with syslog priorities where the journal reads it (sd-daemon(3)), else with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        _JournalFormatter()
        if os.environ.get("JOURNAL_STREAM")
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.DEBUG if config.debug else logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.INFO)


class _JournalFormatter(logging.Formatter):
    PRIORITIES = (
        (logging.CRITICAL, "<2>"),
        (logging.ERROR, "<3>"),
        (logging.WARNING, "<4>"),
        (logging.INFO, "<6>"),
        (logging.DEBUG, "<7>"),
    )

    def format(self, record: logging.LogRecord) -> str:
        prefix = next((text for level, text in self.PRIORITIES if record.levelno >= level), "<7>")
        lines = super().format(record).splitlines()
        return "\n".join(prefix + line for line in lines)


if __name__ == "__main__":
    sys.exit(main())
