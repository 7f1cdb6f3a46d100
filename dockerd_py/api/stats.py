"""/containers/{}/stats: what a container uses, once or every second, in the words of Docker's StatsResponse."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from dockerd_py.api.call import Call, dump
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.routing import Route
from dockerd_py.api.times import rfc3339
from dockerd_py.engine.model import Container, Stats


async def stats(call: Call) -> web.StreamResponse:
    containers = call.engine.containers
    container = containers.get(call.name)
    version = (await call.engine.info()).cgroup_version
    if call.flag("stream", default=True):
        return await call.front.while_connected(_stream(call, container, version))
    if call.flag("one-shot"):
        return call.json(_encode(container, Stats(), await containers.stats(container.id), version))
    found = Stats(), Stats()
    async with contextlib.aclosing(containers.stats_stream(container.id)) as samples:
        async for pair in samples:
            found = pair
            if pair[0].time or not pair[1].time:  # the second one, or it does not run
                break
    return call.json(_encode(container, *found, version))


async def _stream(call: Call, container: Container, version: str) -> web.StreamResponse:
    response = await call.stream("application/json")
    async with contextlib.aclosing(call.engine.containers.stats_stream(container.id)) as samples:
        async for before, now in samples:
            await response.write(dump(_encode(container, before, now, version)))
    await response.write_eof()
    return response


def _encode(container: Container, before: Stats, now: Stats, cgroup_version: str) -> JsonObject:
    result: JsonObject = {
        "read": _time(now),
        "preread": _time(before),
        "pids_stats": _pids(now),
        "blkio_stats": _block_io(now, cgroup_version),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now, cgroup_version),
        "name": "/" + container.name,
        "id": container.id,
    }
    if now.interfaces:
        result["networks"] = {name: interface._asdict() for name, interface in now.interfaces.items()}
    return result


def _time(sample: Stats) -> str:
    return rfc3339(sample.time)


def _pids(sample: Stats) -> JsonObject:
    found = {"current": sample.usage.pids, "limit": sample.usage.pids_limit}
    return {key: value for key, value in found.items() if value}


def _cpu(sample: Stats) -> JsonObject:
    usage = sample.usage
    spent: JsonObject = {
        "total_usage": usage.cpu_total,
        "usage_in_kernelmode": usage.cpu_system,
        "usage_in_usermode": usage.cpu_user,
    }
    if usage.cpu_each:
        spent["percpu_usage"] = list(usage.cpu_each)
    found: JsonObject = {
        "cpu_usage": spent,
        "throttling_data": {
            "periods": usage.throttling_periods,
            "throttled_periods": usage.throttled_periods,
            "throttled_time": usage.throttled_time,
        },
    }
    if sample.time:
        found["system_cpu_usage"] = sample.system_time
        found["online_cpus"] = sample.processors
    return found


def _memory(sample: Stats, cgroup_version: str) -> JsonObject:
    usage = sample.usage
    if not sample.time:
        return {}
    found: JsonObject = {"usage": usage.memory, "stats": usage.memory_details, "limit": sample.memory_limit}
    if cgroup_version == "1":
        found |= {"max_usage": usage.memory_peak, "failcnt": usage.memory_failures}
    return found


def _block_io(sample: Stats, cgroup_version: str) -> JsonObject:
    nothing: list[Any] | None = [] if cgroup_version == "1" else None
    others = ("io_queue_recursive", "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive",
              "io_time_recursive", "sectors_recursive")  # fmt: skip
    return {
        "io_service_bytes_recursive": _counters(sample.usage.io_bytes) or nothing,
        "io_serviced_recursive": _counters(sample.usage.io_operations) or nothing,
        **dict.fromkeys(others, nothing),
    }


def _counters(counters: Sequence[Any]) -> list[JsonObject]:
    return [{"major": c.major, "minor": c.minor, "op": c.operation, "value": c.value} for c in counters]


ROUTES = (Route("GET", "/containers/{}/stats", stats),)
