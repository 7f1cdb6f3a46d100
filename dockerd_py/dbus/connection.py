"""One connection to the bus, fit for callers that nobody trusts.

dbus-next's own connection is right about messages and wrong about failure; this one keeps its messages,
marshalling, authentication and matching of replies, and replaces how bytes come in and go out:

- A frame is read whole before it is parsed.  One that cannot be parsed is dropped, with a log line, instead of
  ending the connection; one whose body exceeds ``MAX_BODY`` keeps its header only, so that it can be refused without
  its body ever being built.
- A flood of messages gets half of the event loop's time at most: a turn of reading ends after ``_TURN`` or a few
  frames, and when it and what it set off took longer than that, a rest as long follows.  Large answers are put into
  bytes by a thread of the connection's own.
- Writing waits for a full socket instead of taking it for an error, owns the file descriptors of what it sends and
  closes them, and stops the reading while too much waits to go out (`outbox`).
- Connecting neither blocks nor spins when the bus is full or goes away halfway.
- A call that is not answered in time ends.
"""

from __future__ import annotations

import array
import asyncio
import io
import logging
import socket
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import SignatureTree

from dockerd_py.dbus.outbox import Outbox, close_all
from dockerd_py.errors import PydockerdError, TimedOut

log = logging.getLogger(__name__)

BUS_NAME = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"

MAX_BODY = 128 * 1024
"""Bytes of a message's body: what a command line, its environment and labels need.  The worst take 70 ms to parse."""

_TURN = 0.002  # seconds
_FRAMES_A_TURN = 8
_MAX_FDS = 16  # what dbus-daemon lets through in one message
_FIXED_HEADER = 16
_CONNECT_SECONDS = 10.0
_MAX_SIGNATURES = 256

Handler = Callable[[Message], None]


class BusCallFailed(PydockerdError):
    """A call of ours to another bus client was answered with an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class _Signatures(dict[str, SignatureTree]):
    """dbus-next remembers every signature that it ever saw, and callers can invent them.

    It asks whether one is known and then for it; in between another thread may have made room.
    """

    def __setitem__(self, signature: str, tree: SignatureTree) -> None:
        if len(self) >= _MAX_SIGNATURES:
            self.clear()
        super().__setitem__(signature, tree)

    def __missing__(self, signature: str) -> SignatureTree:
        return SignatureTree(signature)


SignatureTree._cache = _Signatures(SignatureTree._cache)


class Connection(MessageBus):
    """A connection to one bus.  Make it in a running loop, then ``await open()``."""

    def __init__(self, address: str, handler: Handler) -> None:
        """Connect to ``address`` ("unix:path=..."); ``handler`` gets every call and signal and must not raise.

        Raises OSError when nothing listens there.
        """
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._to_skip = 0
        self._resting = False
        self._scribe = ThreadPoolExecutor(1, "dbus-scribe")
        super().__init__(bus_address=address, negotiate_unix_fd=True)
        self._outbox = Outbox(self._sock, on_full=self._read_or_not, on_error=self._finalize)
        self._writer = self._outbox  # type: ignore[assignment]
        self._handler = handler
        # Whoever is interested awaits it; asyncio must not complain when nobody is.
        self._disconnect_future.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def open(self) -> None:
        """Authenticate and say hello.  Raises OSError, EOFError or TimedOut; the connection is closed then."""
        try:
            await asyncio.wait_for(self.connect(), _CONNECT_SECONDS)
        except asyncio.TimeoutError:
            self.close()
            raise TimedOut("the bus accepted a connection and did not answer") from None
        except BaseException:
            self.close()
            raise
        self.add_message_handler(self._take)

    def close(self) -> None:
        self._user_disconnect = True
        self._finalize(None)

    async def closed(self) -> str:
        """Wait for the end of the connection and say why it ended."""
        try:
            await self._disconnect_future
        except (OSError, EOFError, ValueError) as error:
            return str(error)
        return "closed"

    async def flush(self, seconds: float) -> None:
        """Wait until all that was sent has left, at most ``seconds``."""
        with suppress(asyncio.TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._outbox.drained(), seconds)

    async def ask(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        timeout: float = 10.0,
    ) -> list[Any]:
        """Call a method and return the reply's body.

        Raises BusCallFailed for an error reply, TimedOut without any, ConnectionError when the bus is gone.
        """
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            serial=self.next_serial(),
        )
        if not self.connected:
            raise ConnectionError("the connection to the bus is closed")
        # Not wait_for, which before Python 3.12 forgets that it was cancelled when the answer comes just then.
        calling = asyncio.ensure_future(self.call(message))
        try:
            if not (await asyncio.wait((calling,), timeout=timeout))[0]:
                raise TimedOut(f"{destination} did not answer {member} within {timeout:g} s")
            reply = calling.result()
        except (OSError, EOFError, ValueError) as error:
            raise ConnectionError(f"the connection to the bus was lost: {error}") from error
        finally:
            calling.cancel()
            self._method_return_handlers.pop(message.serial, None)
        if reply is None:
            raise ConnectionError("the connection to the bus was closed")
        if is_cut_off(reply):
            raise BusCallFailed("LimitsExceeded", f"the answer to {member} is too large")
        if reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply.signature.startswith("s") else ""
            raise BusCallFailed(str(reply.error_name), text)
        return list(reply.body)

    def tell(
        self, destination: str, path: str, interface: str, member: str, signature: str, body: Sequence[Any]
    ) -> None:
        """Call a method whose answer does not matter."""
        self.send(
            Message(
                destination=destination,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )

    async def send_large(self, make: Callable[[], Message]) -> None:
        """Send what ``make`` returns, which is called and put into bytes outside the event loop.

        Raises LimitsExceeded.
        """
        serial = self.next_serial()

        def write() -> bytes:
            message = make()
            message.serial = serial
            return bytes(message._marshall())  # type: ignore[no-untyped-call]

        data = await self._loop.run_in_executor(self._scribe, write)
        self._outbox.put(data, (), self._loop.create_future())

    # What follows replaces parts of dbus-next and is called by it.

    def _setup_socket(self) -> None:
        error: Exception = ConnectionError("the bus address names no unix socket")
        for transport, options in self._bus_address:
            if transport != "unix":
                continue
            name = options["path"] if "path" in options else "\0" + options.get("abstract", "")
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            sock.setblocking(False)
            try:
                sock.connect(name)
            except OSError as failure:
                sock.close()
                error = failure
                continue
            self._sock = sock
            self._fd = sock.fileno()
            self._stream = sock.makefile("rwb")
            return
        raise error

    async def _auth_readline(self) -> str:
        line = b""
        while not line.endswith(b"\r\n"):
            byte = await self._loop.sock_recv(self._sock, 1)
            if not byte or len(line) > 1000:
                raise EOFError("the bus refused the connection")
            line += byte
        return line[:-2].decode(errors="replace")

    def _message_reader(self) -> None:
        started = time.monotonic()
        try:
            for _ in range(_FRAMES_A_TURN):
                if time.monotonic() - started > _TURN:
                    break
                frame = self._receive()
                if frame is None:
                    return
                fds, self._fds = self._fds, []
                message = _parse(frame)
                if message is None:
                    close_all(fds)
                    continue
                message.unix_fds = fds
                self._on_message(message)  # type: ignore[no-untyped-call]
        except (OSError, EOFError, ValueError) as error:
            self._finalize(error)
            return
        self._resting = True
        self._read_or_not()
        # Comes after the first steps of the tasks that these messages have started.
        self._loop.call_soon(self._rest, started)

    def _finalize(self, err: Exception | None = None) -> None:
        if self._disconnected:
            return
        super()._finalize(err)  # type: ignore[no-untyped-call]
        self._outbox.abandon()
        close_all(self._fds)
        self._stream.close()
        self._sock.close()
        self._scribe.shutdown(wait=False, cancel_futures=True)

    def _rest(self, since: float) -> None:
        spent = time.monotonic() - since
        if spent > _TURN:
            self._loop.call_later(spent, self._rested)
        else:
            self._rested()

    def _rested(self) -> None:
        self._resting = False
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._disconnected:
            return
        if self._resting or self._outbox.full:
            self._loop.remove_reader(self._fd)
        else:
            self._loop.add_reader(self._fd, self._message_reader)

    def _take(self, message: Message) -> bool:
        """Returns True for what dbus-next must not look at again; replies it matches to our calls itself."""
        if message.message_type in (MessageType.METHOD_CALL, MessageType.SIGNAL):
            self._handler(message)
            return True
        close_all(message.unix_fds)
        return False

    def _receive(self) -> bytes | None:
        """The next frame, or its header alone with an empty body where the body is too large; None: not yet."""
        while self._to_skip:
            data = self._read(min(self._to_skip, 256 * 1024))
            if data is None:
                return None
            self._to_skip -= len(data)
            if not self._to_skip:
                return self._take_frame()
        if not self._fill(_FIXED_HEADER):
            return None
        order = {ord("l"): "<", ord("B"): ">"}.get(self._buffer[0])
        if order is None:
            raise ValueError("the bus sent something that is no message")
        body, _, fields = struct.unpack_from(order + "III", self._buffer, 4)
        header = _FIXED_HEADER + fields + (-fields % 8)
        if body <= MAX_BODY:
            return self._take_frame() if self._fill(header + body) else None
        if not self._fill(header):
            return None
        self._buffer[4:8] = bytes(4)
        self._to_skip = body
        return self._receive()

    def _take_frame(self) -> bytes:
        frame = bytes(self._buffer)
        self._buffer.clear()
        return frame

    def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            data = self._read(size - len(self._buffer))
            if data is None:
                return False
            self._buffer += data
        return True

    def _read(self, size: int) -> bytes | None:
        # Never beyond the frame at hand: the kernel hands over a frame's descriptors with its first byte.
        try:
            room = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
            data, ancillary, _, _ = self._sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if not data:
            raise EOFError("the bus closed the connection")
        return bytes(data)


def is_cut_off(message: Message) -> bool:
    """Whether the body was too large and has been left out."""
    return bool(message.signature) and not message.body


def _parse(frame: bytes) -> Message | None:
    try:
        unmarshaller = Unmarshaller(io.BytesIO(frame))  # type: ignore[no-untyped-call]
        message: object = unmarshaller.unmarshall()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 - whatever the parser trips over was made by someone else
        log.warning("a message on the bus was dropped, it cannot be read: %s", error)
        return None
    return message if isinstance(message, Message) else None
