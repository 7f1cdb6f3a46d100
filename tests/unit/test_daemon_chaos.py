"""SIGKILL at moments that nobody chose: afterwards the state is true, and nothing is left over."""

from __future__ import annotations

import http.client
import random
import signal
import threading
import time

from daemons import Daemon, until

ROUNDS = 8


def work(daemon: Daemon, acknowledged: dict[str, str]) -> None:
    """Make, start and remove containers until the daemon dies, noting what was asked and what was said to be done."""
    while True:
        try:
            container = daemon.create("sh", "-c", "echo up; sleep 0.2; exit 3")
            acknowledged[container] = "created"
            assert daemon.post(f"/containers/{container}/start").status == 204
            acknowledged[container] = "started"
            if random.random() < 0.5:
                acknowledged[container] = "to be removed"
                assert daemon.delete(f"/containers/{container}?force=1").status == 204
                acknowledged[container] = "removed"
        except (OSError, http.client.HTTPException):
            return


def test_the_daemon_may_be_killed_at_any_moment(own_daemon: Daemon) -> None:
    for seed in range(ROUNDS):
        random.seed(seed)
        acknowledged: dict[str, str] = {}
        threads = [threading.Thread(target=work, args=(own_daemon, acknowledged)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3 + random.random() * 0.3)
        own_daemon.stop(signal.SIGKILL)
        for thread in threads:
            thread.join()
        own_daemon.start()
        found = {container["Id"] for container in own_daemon.get("/containers/json?all=1").json}
        assert acknowledged
        for container, state in acknowledged.items():
            if state == "removed":
                assert container not in found
            elif state == "started":
                assert own_daemon.wait(container) == 3
                assert own_daemon.logs(container) == b"up\n"
            elif state == "created":
                assert own_daemon.inspect(container)["State"]["Status"] in ("created", "running", "exited")
        for container in found:
            assert own_daemon.delete(f"/containers/{container}?force=1").status in (204, 404)
        until(lambda: own_daemon.leftovers() == [], 15)
        until(lambda: not list((own_daemon.run / "containers").glob("*/monitor.sock")), 15)
