"""/events: history, then what happens, with nothing lost between, as long as somebody listens."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

from daemons import Daemon, until
from wire import UnixConnection, read_head, read_until


def test_events_are_history_and_then_what_happens(daemon: Daemon) -> None:
    begun = time.time()
    container = daemon.create("true", name="one", Labels={"k": "v"})
    filters = quote(json.dumps({"type": ["container"], "container": [container]}))
    daemon.post("/images/busybox/tag?repo=other")
    client = UnixConnection(daemon.socket, 20)
    client.request("GET", f"/v1.41/events?since={begun - 1:.9f}&filters={filters}")
    response = client.getresponse()
    assert response.headers["Content-Type"] == "application/json"
    first = json.loads(response.readline())
    assert abs(first["timeNano"] / 1e9 - begun) < 5
    assert first["time"] == first["timeNano"] // 1_000_000_000
    assert first | {"time": 0, "timeNano": 0} == {
        "status": "create",
        "id": container,
        "from": "busybox",
        "Type": "container",
        "Action": "create",
        "Actor": {"ID": container, "Attributes": {"name": "one", "image": "busybox", "k": "v"}},
        "scope": "local",
        "time": 0,
        "timeNano": 0,
    }
    daemon.post(f"/containers/{container}/start")
    assert json.loads(response.readline())["Action"] == "start"
    died = json.loads(response.readline())
    assert (died["Action"], died["Actor"]["Attributes"]["exitCode"]) == ("die", "0")
    assert daemon.held()[2] == 1
    response.close()
    client.close()
    daemon.delete("/images/other")


def test_the_first_years_events_have_five_keys(daemon: Daemon) -> None:
    begun = time.time()
    container = daemon.create("true")
    reply = daemon.get(f"/events?since={begun:.9f}&until={time.time():.9f}", version="1.10")
    (event,) = (json.loads(line) for line in reply.data.splitlines())
    assert event == {"status": "create", "id": container, "from": "busybox", "time": event["time"]}


def test_a_client_that_leaves_is_listened_to_no_more(daemon: Daemon) -> None:
    before = daemon.resting()
    clients = [daemon.connect() for _ in range(10)]
    for client in clients:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        read_head(client)
    assert daemon.held()[2] == 10
    for client in clients:
        client.close()
    until(lambda: daemon.held() == before)


def test_nothing_that_happens_after_the_head_of_events_is_missed(daemon: Daemon) -> None:
    for number in range(20):
        with daemon.connect() as client:
            client.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
            read_head(client)
            container = daemon.create("true", name=f"seen{number}")
            assert f'"id":"{container}"'.encode() in read_until(client, b"}\n")


def test_events_end_at_until_and_filters_choose(daemon: Daemon) -> None:
    begun = time.time()
    container = daemon.run_detached("sh", "-c", "exit 4", name="chosen", Labels={"k": "v"})
    daemon.wait(container)
    daemon.post("/images/busybox/tag?repo=chosen")
    ended = time.time()

    def actions(**filters: list[str]) -> list[str]:
        query = f"since={begun:.9f}&until={ended:.9f}&filters={quote(json.dumps(filters))}"
        return [json.loads(line)["Action"] for line in daemon.get(f"/events?{query}").data.splitlines()]

    life = ["create", "start", "die"]
    assert actions() == [*life, "tag"]
    assert actions(type=["container"]) == life
    assert actions(type=["image"]) == ["tag"]
    assert actions(event=["die", "tag"]) == ["die", "tag"]
    assert actions(container=["chosen"], image=["busybox"], label=["k=v"]) == life
    assert actions(container=[container[:12]]) == life
    assert actions(container=["two"]) == []
    assert actions(label=["k=w"]) == []
    daemon.delete("/images/chosen")


def test_events_with_an_until_to_come_end_then(daemon: Daemon) -> None:
    begun = time.time()
    reply = daemon.get(f"/events?since={begun:.9f}&until={begun + 0.3:.9f}")
    assert (reply.status, reply.data) == (200, b"")
    assert time.time() - begun > 0.25


def test_bad_moments_and_filters_are_refused(daemon: Daemon) -> None:
    reply = daemon.get("/events?since=yesterday")
    assert (reply.status, reply.message.startswith("Bad parameter: since must be")) == (400, True)
    reply = daemon.get('/events?filters={"nonsense":["x"]}')
    assert (reply.status, reply.message) == (400, "invalid filter 'nonsense'")
