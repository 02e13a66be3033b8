"""Serving the app: on which address, who may fetch what, and until when.

Nothing is fetched from elsewhere: Gradio's reports and version checks are off, and the page's own policy forbids the
browser every other address. Files of visitors live in a folder of this process, which goes with it.
"""

import contextlib
import logging
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from triadbench.core import extras
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE
from triadbench.export.app.predictors import Predictors
from triadbench.export.app.recognition import Recogniser

DELETE_AFTER_S = 3600
_SWEEP_S = 60
_LAST_MESSAGES_S = 0.2  # time for the last messages to reach the visitors
_MAX_WAITING = 64  # requests that wait at most; the visitor of one more is asked to come again
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


def serve(
    predictors: Predictors, host: str, port: int, max_mb: float, max_minutes: float, started: Callable[[str], None]
) -> None:
    """Serve until interrupted or terminated.

    Args:
        host, port: to bind; port 0 is any free one.
        max_mb, max_minutes: megabytes of a file and minutes of a song that a visitor may send at most.
        started: called with the address once the page can be opened.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
        UserError: Gradio is too old, the port is taken, or the host is not of this machine.
    """
    stop = threading.Event()
    # How a service, or closing a terminal's window, ends the process: visitors' files must go.
    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):
        signal.signal(getattr(signal, name), lambda *_: stop.set())
    folder = Path(tempfile.mkdtemp(prefix="triadbench-app-"))
    try:
        _set_environment(folder)
        with contextlib.ExitStack() as ending:
            port = _free_port(host, port)
            recogniser = Recogniser(predictors, folder, max_mb, max_minutes)
            blocks = _build(recogniser)
            ending.callback(_close, blocks)
            ending.callback(recogniser.songs.close)  # first, so that closing waits for none
            started(_launch(blocks, host, port, max_mb))
            examples = frozenset(path for path in folder.rglob("*") if path.is_file())  # Gradio's copies
            while not stop.wait(_SWEEP_S):
                sweep(folder, DELETE_AFTER_S, examples)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _close(blocks) -> None:
    """End the server, whoever is still connected: a browser keeps its stream open for ever."""
    if getattr(blocks, "server", None) is not None:
        time.sleep(_LAST_MESSAGES_S)
        blocks.server.force_exit = True
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it reports what it cut off
    blocks.close(verbose=False)


def _set_environment(folder: Path) -> None:
    """Settings that Gradio reads when it is imported, in the place of the user's own."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # GRADIO_SHARE and others would open what our options keep closed
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    # Gradio asks its own server whether it has started; a proxy knows nothing of it.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost", "::1"]))


def _build(recogniser: Recogniser):
    """The gr.Blocks, not yet served."""
    import gradio

    if int(gradio.__version__.split(".")[0]) < 6:
        raise UserError(f"the app needs Gradio 6, here is {gradio.__version__}; {extras.way_out('gradio')}")
    from triadbench.export.app.page import build

    return build(recogniser)


def _launch(blocks, host: str, port: int, max_mb: float) -> str:
    """Start serving; the address."""
    from starlette.middleware import Middleware

    from triadbench.export.app.page import CSS, HEAD, theme

    blocks.queue(max_size=_MAX_WAITING, api_open=False, default_concurrency_limit=2)
    closed = dict.fromkeys(("share", "show_error", "enable_monitoring", "ssr_mode", "pwa", "mcp_server"), False)
    page = {"theme": theme(), "css": CSS, "head": HEAD, "footer_links": ["api"], "run_history": False}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            _, address, _ = blocks.launch(
                **closed,
                **page,
                server_name=f"[{host.strip('[]')}]" if ":" in host else host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=round(max_mb * 1e6),
                allowed_paths=[],
                blocked_paths=[str(PACKAGE)],
                state_session_capacity=1000,
                app_kwargs={"middleware": [Middleware(_Policy, local=_is_local(host))]},
            )
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot be served ({error}); give another --port") from error
    return address.rstrip("/")


def _is_local(host: str) -> bool:
    """Whether only this computer can connect to it."""
    return host.strip("[]") in ("localhost", "::1") or host.startswith("127.")


class _Policy:
    """Around every answer of the server: the page may not fetch from elsewhere, and neither may the server for it.

    With `local`, pages of other sites are turned away too: a browser would let them send files here, and under a name
    that they make point to this computer, read the answers.
    """

    def __init__(self, app, local: bool):
        self._app, self._local = app, local

    async def __call__(self, scope, receive, send):
        from starlette.responses import PlainTextResponse

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif any(f"{kind}=http" in scope["path"].replace(":/", "").lower() for kind in ("file", "proxy")):
            await PlainTextResponse("this server fetches nothing from elsewhere", 403)(scope, receive, send)
        elif self._local and not _from_this_computer(dict(scope["headers"])):
            await PlainTextResponse("this server answers its own page, on its own computer", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send_with_headers)


def _from_this_computer(headers: dict[bytes, bytes]) -> bool:
    """Whether the request names this computer, and comes from no other site's page."""
    host, origin = (headers.get(name, b"").decode("latin-1").lower() for name in (b"host", b"origin"))
    return _is_local(host.rsplit(":", 1)[0]) and origin in ("", f"http://{host}")


def _free_port(host: str, port: int) -> int:
    """The port if it is free; for 0 one that the system gives."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host.strip("[]"), port))
        except socket.gaierror as error:
            raise UserError(f"--host {host}: no such address ({error.strerror})") from error
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"--host {host} --port {port}: cannot be bound ({reason}); give another --port") from error
        return trial.getsockname()[1]


def sweep(folder: Path, older_than_s: float, keep: frozenset[Path] = frozenset(), now: float | None = None) -> int:
    """Delete files that came so long before `now` (seconds since 1970), and empty folders; how many files went."""
    deleted, limit = 0, (time.time() if now is None else now) - older_than_s
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder comes after what is in it
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                if status.st_mtime < limit:
                    path.rmdir()
            # A copy keeps the time of its original, but not that of its own arrival.
            elif path not in keep and max(status.st_mtime, status.st_ctime) < limit:
                path.unlink()
                deleted += 1
    return deleted
