"""Bundles for real containers: a root filesystem made of the machine's own busybox, and crun's calls for it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from dockerd_py.runtime import capabilities, spec
from dockerd_py.runtime.crun import Crun, mount_to_hide

MKIMAGE = Path(__file__).parents[2] / "contrib" / "mkimage"


def make_rootfs(directory: Path) -> Path:
    """A root filesystem with busybox and its applets, and a user named ann."""
    directory.mkdir(parents=True, exist_ok=True)
    image = subprocess.run([MKIMAGE, "busybox"], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-C", directory, "-x"], check=True, input=image)
    (directory / "home/ann").mkdir()
    (directory / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
    )
    (directory / "etc/group").write_text(
        "root:x:0:\nann:x:1000:\naudio:x:29:ann\nvideo:x:44:root,ann\nnogroup:x:65534:\n"
    )
    os.chown(directory / "home/ann", 1000, 1000)
    return directory


def monitor_config(
    directory: Path,
    rootfs: Path,
    container_id: str,
    *argv: str,
    tty: bool = False,
    open_stdin: bool = False,
    stdin_once: bool = False,
    log_driver: str = "json-file",
) -> dict[str, object]:
    """Write a bundle for ``argv`` into ``directory``; the monitor's configuration for it."""
    run = directory / "run"
    (directory / "spool").mkdir(parents=True, exist_ok=True)
    run.mkdir(exist_ok=True)
    settings = spec.SpecInput(
        id=container_id,
        root=str(rootfs),
        args=argv,
        environment=spec.default_environment([], hostname="h", terminal=tty, home="/root"),
        terminal=tty,
        capabilities=capabilities.DEFAULT,
    )
    (run / "config.json").write_text(json.dumps(spec.build_spec(settings)))
    crun = Crun(root=str(directory / "crun"))
    log = str(run / "runtime.log")
    return {
        "id": container_id,
        "directory": str(run),
        "spool": str(directory / "spool"),
        "create": crun.create(
            container_id,
            bundle=str(run),
            pid_file=str(run / "init.pid"),
            log=log,
            console_socket="console.sock" if tty else "",
        ),
        "start": crun.start(container_id, log=log),
        "delete": crun.delete(container_id, force=True, log=log),
        "hide": mount_to_hide(),
        "tty": tty,
        "open_stdin": open_stdin,
        "stdin_once": stdin_once,
        "height": 0,
        "width": 0,
        "epoch": "e1",
        "log_driver": log_driver,
        "log_path": str(directory / "log"),
        "log_fields": {"CONTAINER_ID_FULL": container_id, "CONTAINER_NAME": "n"},
        "log_names": [container_id, container_id[:12], "n"],
    }
