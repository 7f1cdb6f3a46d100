"""The command: see the package's docstring."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

from . import rootfs
from .machine import Machine, MachineFailed

TOP = Path(__file__).resolve().parents[3]
INSIDE = Path("/opt/pydockerd-testhost")
"""Where the host finds what comes from outside."""

TEST_SECONDS = 20 * 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="testhost", description="Boot a host with the package installed.")
    parser.add_argument("--deb", type=Path, help="the package (default: the newest in dist/)")
    parser.add_argument("command", choices=("run", "shell"), help="run the host tests in it, or open a shell")
    parser.epilog = "All that follows run is pytest's."
    words = sys.argv[1:]
    ours = words.index("run") + 1 if "run" in words else len(words)
    options = parser.parse_args(words[:ours])
    signal.signal(signal.SIGTERM, _interrupt)
    if os.geteuid() != 0:
        parser.error("a test host needs root")
    try:
        deb = options.deb or _newest_deb()
        others = [path for path in sorted(deb.parent.glob("*.deb")) if not path.name.startswith("pydockerd_")]
        with Machine(rootfs.ensure(deb, others), rootfs.cache_directory() / "runs") as machine:
            _bring_in(machine.root, deb)
            if (code := _install(machine)) != 0:
                return code
            return _test(machine, words[ours:]) if options.command == "run" else _shell(machine)
    except (MachineFailed, rootfs.RootfsFailed) as error:
        print(f"test host: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _newest_deb() -> Path:
    found = sorted((TOP / "dist").glob("pydockerd_*_all.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise rootfs.RootfsFailed("there is no package in dist/: make deb")
    return found[-1]


def _bring_in(root: Path, deb: Path) -> None:
    """Put the package, the tests and the scripts that they use into the host."""
    inside = root / INSIDE.relative_to("/")
    ignore = shutil.ignore_patterns("__pycache__", "testhost")
    shutil.copytree(TOP / "tests" / "host", inside / "tests" / "host", ignore=ignore)
    shutil.copytree(TOP / "contrib", inside / "contrib")
    shutil.copy(deb, inside / "pydockerd.deb")
    (inside / "clients").mkdir()
    if client := shutil.which("docker"):
        shutil.copy(client, inside / "clients" / "docker-of-the-machine")


def _install(machine: Machine) -> int:
    """apt is offline in the host: it succeeds only if the package's dependencies are what the host holds."""
    apt = ["apt-get", "-qq", "--yes", "-o", "Dpkg::Use-Pty=0", "install", f"{INSIDE}/pydockerd.deb"]
    return machine.run(apt, quiet=True, properties=["Environment=DEBIAN_FRONTEND=noninteractive"])


def _test(machine: Machine, arguments: list[str]) -> int:
    chosen = [argument.replace("tests/host", f"{INSIDE}/tests/host", 1) for argument in arguments]
    pytest = ["/usr/bin/python3", "-B", "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=600"]
    return machine.run(
        [*pytest, "--rootdir", f"{INSIDE}/tests/host", "-ra", *chosen],
        properties=[
            f"WorkingDirectory={INSIDE}/tests/host",
            f"RuntimeMaxSec={TEST_SECONDS}",
            "Environment=LANG=C.UTF-8 PYTHONUNBUFFERED=1",
        ],
    )


def _shell(machine: Machine) -> int:
    print(f"{machine.name}: pydockerd is installed and runs; what you leave here is lost.  Ctrl-D ends it.")
    return machine.shell()


if __name__ == "__main__":
    sys.exit(main())
