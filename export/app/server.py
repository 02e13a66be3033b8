"""Serving the app: on which address, who may fetch what, and until when.

Nothing is fetched from elsewhere: Gradio's reports and version checks are off, and the page's own policy forbids the
browser every other address. Files of visitors live in a folder of this process, which goes with it.
"""

import contextlib
import itertools
import logging
import math
import os
import socket
import stat
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

from triadbench.core import extras
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE
from triadbench.export.app import guard
from triadbench.export.app.predictors import Predictors
from triadbench.export.app.recognition import Recogniser
from triadbench.kernels.scratch import scratch_folder

_SWEEP_S = 60
_LAST_MESSAGES_S = 0.2  # time for the last messages to reach the visitors
_MAX_WAITING = 64  # requests that wait at most; the visitor of one more is asked to come again


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
    with scratch_folder() as folder, contextlib.ExitStack() as ending:
        _set_environment(folder)
        port = _free_port(host, port)
        recogniser = Recogniser(predictors, folder, max_mb, max_minutes)
        blocks = _build(recogniser)
        ending.callback(_close, blocks)
        ending.callback(recogniser.songs.close)  # first, so that closing waits for none
        started(_launch(blocks, host, port, max_mb))
        examples = frozenset(path for path in folder.rglob("*") if path.is_file())  # Gradio's copies
        connections, most_bytes = guard.Connections(), round(20e6 * max_mb)
        for second in itertools.count(1):
            time.sleep(1)
            connections.tidy(set(blocks.server.server_state.connections))
            if second % _SWEEP_S == 0:
                sweep(folder, guard.KEPT_S, examples, most_bytes=most_bytes)


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
    from gradio import queueing, routes

    if int(gradio.__version__.split(".")[0]) < 6:
        raise UserError(f"the app needs Gradio 6, here is {gradio.__version__}; {extras.way_out('gradio')}")
    from triadbench.export.app.page import build

    for module in (queueing, routes):  # their tracebacks print what was sent
        vars(module)["traceback"] = types.SimpleNamespace(print_exc=lambda: guard.log_place(sys.exc_info()[1]))
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
                app_kwargs={"middleware": [Middleware(guard.Guard, local=guard.is_local(host), max_mb=max_mb)]},
            )
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot be served ({error}); give another --port") from error
    return address.rstrip("/")


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


def sweep(
    folder: Path,
    older_than_s: float,
    keep: frozenset[Path] = frozenset(),
    now: float | None = None,
    most_bytes: float = math.inf,
) -> int:
    """Delete files that came so long before `now` (seconds since 1970), the oldest where they are more than
    `most_bytes`, and empty folders; how many files went.
    """
    deleted, limit = 0, (time.time() if now is None else now) - older_than_s
    files = []
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder comes after what is in it
        with contextlib.suppress(OSError):
            status = path.lstat()
            # A copy keeps the time of its original, but not that of its own arrival.
            came = max(status.st_mtime, status.st_ctime)
            if not stat.S_ISDIR(status.st_mode):
                files += [] if path in keep else [(came, status.st_size, path)]
            elif status.st_mtime < limit:
                path.rmdir()
    n_bytes = sum(size for _, size, _ in files)
    for came, size, path in sorted(files):
        if came < limit or n_bytes > most_bytes:
            with contextlib.suppress(OSError):
                path.unlink()
                deleted += 1
            n_bytes -= size
    return deleted
