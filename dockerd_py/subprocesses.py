"""The one way in which the daemon starts a program: one log line, one error form, never a shell.

(The monitor, a program of its own, starts the OCI runtime itself.)
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from dockerd_py.errors import PydockerdError

log = logging.getLogger(__name__)

Redirect = int | IO[bytes] | None


class ProgramFailed(PydockerdError):
    """A program could not be started, or ended with a code other than 0."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: str) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr.strip()
        how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with code {returncode}"
        super().__init__(f"{argv[0]} {how}" + (f": {self.stderr}" if self.stderr else ""))


@dataclass(frozen=True)
class Completed:
    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


async def spawn(
    argv: Sequence[str],
    *,
    stdin: Redirect = asyncio.subprocess.DEVNULL,
    stdout: Redirect = asyncio.subprocess.DEVNULL,
    stderr: Redirect = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> asyncio.subprocess.Process:
    """Start ``argv`` and return the process; the caller waits for it.

    Raises ProgramFailed (code 127) when the program is missing or cannot be executed.
    """
    log.debug("exec %s", shlex.join(argv))
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=None if env is None else dict(env),
            pass_fds=tuple(pass_fds),
            start_new_session=new_session,
        )
    except FileNotFoundError as error:
        raise ProgramFailed(argv, 127, f"{argv[0]} is not installed") from error
    except OSError as error:
        raise ProgramFailed(argv, 127, str(error)) from error


async def run(
    argv: Sequence[str],
    *,
    input_: bytes | None = None,
    check: bool = True,
    timeout: float | None = 60,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run ``argv`` to its end and return what it printed.

    Raises ProgramFailed when it ends with another code than 0 and ``check`` is set, or exceeds ``timeout``
    seconds (it is killed then).
    """
    process = await spawn(
        argv,
        stdin=asyncio.subprocess.DEVNULL if input_ is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(input_), timeout)
    except asyncio.TimeoutError:
        raise ProgramFailed(argv, -9, f"no end within {timeout} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    if check and process.returncode != 0:
        raise ProgramFailed(argv, process.returncode, err.decode(errors="replace"))
    return Completed(tuple(argv), process.returncode, out, err)
