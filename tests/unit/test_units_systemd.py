"""systemd's side where no systemd is: signatures are checked, and a bus that is not there is an error, not a hang."""

from __future__ import annotations

import asyncio
import os

import pytest

from dockerd_py.errors import PydockerdError
from dockerd_py.units.systemd import typed
from dockerd_py.units.systemd_link import BusError, SystemdLink

NO_BUS = not os.path.exists("/run/dbus/system_bus_socket")


def test_properties_go_out_with_their_signatures_and_unknown_ones_are_refused() -> None:
    assert typed({"TasksMax": 5, "DeviceAllow": [("/dev/null", "r")]}) == [
        ("TasksMax", "t", 5),
        ("DeviceAllow", "a(ss)", [("/dev/null", "r")]),
    ]
    with pytest.raises(PydockerdError, match="no D-Bus signature is known for Nonsense"):
        typed({"Nonsense": 1})


@pytest.mark.skipif(not NO_BUS, reason="a system bus runs here")
def test_without_a_bus_a_request_fails_as_not_sent_and_the_worker_lives_on() -> None:
    async def scenario() -> None:
        link = SystemdLink()
        for _ in range(2):
            with pytest.raises(BusError) as failure:
                await link.call("ListUnits")
            assert failure.value.not_sent
        assert link._process is not None
        assert link._process.returncode is None
        await link.close()

    asyncio.run(scenario())


def test_an_error_knows_whether_its_request_may_have_happened() -> None:
    assert BusError("Disconnected", "").uncertain
    assert BusError("NoReply", "").uncertain
    assert not BusError("UnitExists", "").uncertain
    assert BusError("ServiceUnknown", "").not_sent
    assert not BusError("NoReply", "").not_sent
