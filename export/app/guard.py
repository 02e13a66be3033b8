"""What strangers may do to the app: which hosts and pages may call it, how much they may send, how slowly."""

import asyncio
import ipaddress
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

KEPT_S = 3600
"""Uploads are deleted after this time, and count against the quota until then."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'none'; object-src 'none'; form-action 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_API, _UPLOAD = "/gradio_api/", "/gradio_api/upload"
_POSTS = re.compile(rf"{_API}(upload|queue/join|(call|run)/\w+|cancel|reset)/?")
_JSON_BYTES = 1 << 18  # a call holds names of files, a model and a provider
_FORM_BYTES = 1 << 16  # what a form adds to the file in it
_PATIENCE_S, _SLOWEST = 20, 20_000
"""A body may take this time, and what it takes at so many bytes a second."""
_HALF_OPEN_S, _MAX_CONNECTIONS = 10, 256
_log = logging.getLogger("triadbench.app")


def is_local(host: str) -> bool:
    """Whether an address or name is one that only this computer can connect to."""
    try:
        return host == "localhost" or ipaddress.ip_address(re.sub(r"^\[(.*:.*)\]$", r"\1", host)).is_loopback
    except ValueError:
        return False


def from_this_computer(hosts: Sequence[str], origins: Sequence[str]) -> bool:
    """Whether a request with these Host and Origin headers names this computer, and is of no other site's page."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d+)?", hosts[0]) if len(hosts) == 1 else None
    return match is not None and is_local(match[1]) and set(origins) <= {f"http://{hosts[0]}"}


class Quota:
    """Bytes that visitors sent within `KEPT_S`: at most `each` from one address, and `total` from all."""

    def __init__(self, each: float, total: float, clock: Callable[[], float] = time.monotonic):
        self._each, self._left, self._clock = each, total, clock
        self._sent: Counter[str] = Counter()
        self._uploads: deque[tuple[float, str, int]] = deque()

    def take(self, address: str, n_bytes: int) -> bool:
        """Count an upload; False, and nothing is counted, where it would be too much."""
        while self._uploads and self._uploads[0][0] < self._clock() - KEPT_S:
            _, sender, n = self._uploads.popleft()
            self._left += n
            self._sent[sender] -= n
            if not self._sent[sender]:
                del self._sent[sender]
        if n_bytes > self._left or self._sent[address] + n_bytes > self._each:
            return False
        self._uploads.append((self._clock(), address, n_bytes))
        self._left -= n_bytes
        self._sent[address] += n_bytes
        return True


class Guard:
    """Around every answer of the server: the page may not fetch from elsewhere, and neither may the server for it.

    Args:
        local: turn away pages of other sites: a browser would let them send files here, and under a name that they
            make point to this computer, read the answers.
        max_mb: megabytes of the largest file; a visitor may send five such an hour, all together twenty.
    """

    def __init__(self, app, local: bool, max_mb: float):
        self._app, self._local, self._max_bytes = app, local, max_mb * 1e6
        self._quota = Quota(5 * self._max_bytes, 20 * self._max_bytes)

    async def __call__(self, scope, receive, send):
        from starlette.responses import PlainTextResponse

        started = False

        async def send_with_headers(message):
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] == 500 and scope["method"] == "POST":
                    message["status"] = 400  # mostly a body that is no form, or not the form that was expected
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # a WebSocket, which the page does not use
            return await send({"type": "websocket.close"})
        refusal = self._refusal(scope)
        if refusal is None:
            try:
                in_time = _in_time(receive) if scope["method"] == "POST" else receive
                return await self._app(scope, in_time, send_with_headers)
            except asyncio.TimeoutError:
                refusal = 408, "this came too slowly; try again"
            except Exception as error:
                log_place(error)
                refusal = 500, "this request cannot be answered"
        if not started:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send_with_headers)

    def _refusal(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        """Status and reason where a request is turned away before its body is read."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value.decode("latin-1").lower())
        path, method = scope["path"], scope["method"]
        if any(f"{kind}=http" in path.replace(":/", "").lower() for kind in ("file", "proxy")):
            return 403, "this server fetches nothing from elsewhere"
        if self._local and not from_this_computer(headers.get(b"host", []), headers.get(b"origin", [])):
            return 403, "this server answers its own page, on its own computer"
        if method in ("GET", "HEAD"):
            return None
        if method != "POST" or not _POSTS.fullmatch(path):
            return 405, "this server takes no such request"
        lengths = headers.get(b"content-length", [])
        # Beside a transfer encoding a stated length means nothing.
        if b"transfer-encoding" in headers or len(lengths) != 1 or not lengths[0].isdigit():
            return 411, "the length of what is sent must be stated"
        n_bytes = int(lengths[0])
        if path.rstrip("/") != _UPLOAD:
            return (413, "this call is too long") if n_bytes > _JSON_BYTES else None
        if n_bytes > self._max_bytes + _FORM_BYTES:
            return 413, f"this file is too large; at most {self._max_bytes / 1e6:g} MB are taken"
        if not self._quota.take((scope.get("client") or ("",))[0], n_bytes):
            return 429, "no more files are taken now; come again in an hour"
        return None


def _in_time(receive):
    """`receive` of ASGI for a body that must not trickle in: raises TimeoutError."""
    begun, received, is_whole = time.monotonic(), 0, False

    async def receive_in_time():
        nonlocal received, is_whole
        if is_whole:  # what follows is the end of the connection, whenever that is
            return await receive()
        left = begun + _PATIENCE_S + received / _SLOWEST - time.monotonic()
        message = await asyncio.wait_for(receive(), max(left, 0))
        received += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        return message

    return receive_in_time


def log_place(error: BaseException | None) -> None:
    """Log what was raised and where, but not its message: that may hold all that a visitor sent."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else "unknown"
    _log.error("a request failed: %s at %s", type(error).__name__, place)


class Connections:
    """Closes connections that are half open, and where there are too many, first such and then the oldest of the
    address that has most. uvicorn knows neither a time for a request to come in, nor a limit that spares the others."""

    def __init__(self) -> None:
        self._idle_since: dict[Any, float | None] = {}  # in the order in which they were first seen

    def tidy(self, connections: set) -> None:
        """Call it about every second, with the protocols of uvicorn's `server_state.connections`."""
        before, now = self._idle_since, time.monotonic()
        order = [c for c in before if c in connections] + [c for c in connections if c not in before]
        is_idle = {c: c.cycle is None or c.cycle.response_complete for c in order}
        self._idle_since = {c: (before.get(c) or now) if is_idle[c] else None for c in order}
        addresses = {c: (c.client or ("",))[0] for c in order}
        counts = Counter(addresses.values())
        order.sort(key=lambda c: (not is_idle[c], -counts[addresses[c]]))
        too_many = order[: max(0, len(order) - _MAX_CONNECTIONS)]
        for c in {*too_many, *(c for c, since in self._idle_since.items() if since and since <= now - _HALF_OPEN_S)}:
            c.loop.call_soon_threadsafe(c.transport.abort)
