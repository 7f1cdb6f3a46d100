"""A real dbus-daemon with the system bus's rules and our policy file, on a socket of its own."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

POLICY = Path(__file__).parents[2] / "packaging" / "dbus" / "org.pydockerd1.conf"

# What Debian's and Fedora's system.conf say about who may send what.
_SYSTEM_RULES = f"""
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>{POLICY}</include>
"""

_NO_RULES = """
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
"""


class PrivateBus:
    """Every user may connect to it; ``open_to_all`` lifts the rules of the system bus."""

    def __init__(self, *, open_to_all: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pydockerd-bus-"))
        self.directory.chmod(0o755)
        self.socket = self.directory / "socket"
        self.address = f"unix:path={self.socket}"
        self._config = self.directory / "bus.conf"
        self._config.write_text(
            '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
            ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
            f"<busconfig><listen>{self.address}</listen><auth>EXTERNAL</auth>"
            f"{_NO_RULES if open_to_all else _SYSTEM_RULES}</busconfig>\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateBus:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile", f"--print-address={writing}"],
            pass_fds=[writing],
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        ready, _, _ = select.select([reading], [], [], 10)
        started = bool(ready and os.read(reading, 1000))
        os.close(reading)
        assert started, "dbus-daemon did not start"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def busctl(self, *arguments: str, user: int = 0) -> subprocess.CompletedProcess[str]:
        """Run busctl as ``user`` on this bus."""
        return self.run("busctl", f"--address={self.address}", *arguments, user=user)

    def run(self, *argv: str, user: int) -> subprocess.CompletedProcess[str]:
        """Run a client as ``user``, for which this is the session bus."""
        return subprocess.run(
            argv,
            env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": self.address},
            user=user,
            group=user,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
