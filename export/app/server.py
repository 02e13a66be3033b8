"""Serving the app: on which address, who may fetch what, and until when.

Nothing is fetched from elsewhere: Gradio's reports and version checks are off, and the page's own policy forbids the
browser every other address. Files of visitors live in a folder of this process, which goes with it.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triadbench.core.errors import UserError
from triadbench.export.app.uploads import Limits

DELETE_AFTER_S = 3600
_SWEEP_S = 60
_LAST_WORDS_S = 0.2
"""For what visitors are told at the end to be on its way."""
_QUEUE = 64
"""Questions that wait at most; one more is told to come again."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'none'; object-src 'none'; form-action 'self'"
)


@dataclass(frozen=True)
class Settings:
    """Attributes:
    host, port: to bind; port 0 is any free one.
    model, provider, threads: what answers; see `export.app.predictors.Predictors`.
    limits: of what visitors send.
    browser: open a browser window.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    model: Path | None = None
    provider: str = "cpu"
    threads: int = 1
    limits: Limits = Limits()
    browser: bool = True


def serve(settings: Settings, started: Callable[[str], None], stop: threading.Event | None = None) -> None:
    """Serve until interrupted or terminated, or until `stop` is set.

    Args:
        started: is called with the address once the page can be opened.

    Raises:
        UserError: Gradio is missing, the port is taken, the host is not of this machine, or the model cannot be had.
    """
    stop = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        # A service's way to end it, and that of a terminal's window: visitors' files must go.
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: stop.set())
    folder = Path(tempfile.mkdtemp(prefix="triadbench-app-"))
    try:
        _keep_to_ourselves(folder)
        with contextlib.ExitStack() as ending:
            port = _free_port(settings.host, settings.port)
            blocks, handlers = _build(settings, folder)
            ending.callback(_close, blocks)
            ending.callback(handlers.songs.close)  # first, so that closing waits for none
            started(_launch(blocks, settings, port, folder))
            _wait(folder, stop)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _close(blocks) -> None:
    """End the server, whoever is still connected: a browser keeps its stream open for ever."""
    log = logging.getLogger("uvicorn.error")
    level = log.level
    if getattr(blocks, "server", None) is not None:
        time.sleep(_LAST_WORDS_S)
        blocks.server.force_exit = True
        log.setLevel(logging.CRITICAL)  # it reports what it cut off
    try:
        blocks.close(verbose=False)
    finally:
        log.setLevel(level)


def _keep_to_ourselves(folder: Path) -> None:
    """Settings that Gradio reads when it is imported, or from the user's environment."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # GRADIO_SHARE and others would open what our options keep closed
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }
    # Gradio asks its own server whether it has started; a proxy knows nothing of it.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost", "::1"]))


def _build(settings: Settings, folder: Path):
    from triadbench.export.app.predictors import Predictors

    predictors = Predictors(settings.model, settings.provider, settings.threads)
    _import_gradio()
    from triadbench.export.app.handlers import Handlers
    from triadbench.export.app.page import build

    at_once = max(2, (os.cpu_count() or 2) // max(1, settings.threads))
    handlers = Handlers(predictors, settings.limits, folder, at_once)
    return build(handlers, DELETE_AFTER_S), handlers


def _import_gradio() -> None:
    """Import Gradio in half its time: left alone, it would parse its own sources to write editors' stubs anew.

    Where it cannot find a component's file it writes none, so that is what it is told. Should a version of Gradio ask
    in another way, its import is slower, and that is all.
    """
    find = inspect.getfile

    def find_for_others(what):
        if sys._getframe(1).f_globals.get("__name__") == "gradio.component_meta":
            raise OSError("no stubs wanted")
        return find(what)

    inspect.getfile = find_for_others
    try:
        import gradio
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError('the app needs Gradio, which is not installed; pip install -e ".[app]"') from error
    finally:
        inspect.getfile = find
    if int(gradio.__version__.split(".")[0]) < 6:
        raise UserError(f'the app needs Gradio 6, here is {gradio.__version__}; pip install -U -e ".[app]"')


def _launch(blocks, settings: Settings, port: int, folder: Path) -> str:
    from starlette.middleware import Middleware

    from triadbench.export.app.page import CSS, HEAD, theme

    blocks.queue(max_size=_QUEUE, api_open=False, default_concurrency_limit=2)
    policy = Middleware(_Policy, own=_is_own(settings.host))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            _, local, _ = blocks.launch(
                server_name=_bracketed(settings.host),
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,
                inbrowser=False,
                max_file_size=round(settings.limits.max_mb * 1e6),
                allowed_paths=[],
                blocked_paths=[str(Path(__file__).resolve().parents[2])],
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                run_history=False,
                footer_links=["api"],
                state_session_capacity=1000,
                theme=theme(),
                css=CSS,
                head=HEAD,
                app_kwargs={"middleware": [policy]},
            )
    except OSError as error:
        raise UserError(f"{settings.host}:{port}: cannot be served ({error}); give another --port") from error
    if settings.browser:
        import webbrowser

        webbrowser.open(local)
    return local.rstrip("/")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_own(host: str) -> bool:
    """Whether only this computer can connect to it."""
    return host.strip("[]") in ("localhost", "::1") or host.startswith("127.")


class _Policy:
    """Around every answer of the server: the page may not fetch from elsewhere, and neither may the server for it.

    With `own`, pages of other sites are turned away too: a browser would let them send files here, and under a name
    that they make point to this computer, read the answers.
    """

    def __init__(self, app, own: bool = False):
        self._app, self._own = app, own

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if any(f"{what}=http" in scope["path"].replace(":/", "").lower() for what in ("file", "proxy")):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this server fetches nothing from elsewhere"})
            return

        if self._own and not _from_here(dict(scope["headers"])):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this server answers its own page, on its own computer"})
            return

        async def with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"x-frame-options", b"DENY"),
                ]
            await send(message)

        await self._app(scope, receive, with_policy)


def _from_here(headers: dict[bytes, bytes]) -> bool:
    """Whether the request names this computer, and comes from no other site's page."""
    host = headers.get(b"host", b"").decode("latin-1").lower()
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    return _is_own(host.rsplit(":", 1)[0]) and origin in ("", f"http://{host}")


def _free_port(host: str, port: int) -> int:
    """The port, found free; for 0 one that the system gives."""
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


def _wait(folder: Path, stop: threading.Event) -> None:
    """Until stopped, deleting what visitors left; what lies there before the first of them is the examples."""
    ours = frozenset(path for path in folder.rglob("*") if path.is_file())
    while not stop.wait(_SWEEP_S):
        sweep(folder, DELETE_AFTER_S, ours)


def sweep(folder: Path, older_than_s: float, keep: frozenset[Path] = frozenset(), now: float | None = None) -> int:
    """Delete files that came so long before `now` (seconds since 1970), and empty folders; how many files went."""
    gone, limit = 0, (time.time() if now is None else now) - older_than_s
    for place, _, files in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in files):
            with contextlib.suppress(OSError):
                # A copy keeps the time of its original, but not that of its own arrival.
                if path not in keep and max(path.lstat().st_mtime, path.lstat().st_ctime) < limit:
                    path.unlink()
                    gone += 1
        if Path(place) != folder:
            with contextlib.suppress(OSError):
                if Path(place).stat().st_mtime < limit:
                    Path(place).rmdir()
    return gone
