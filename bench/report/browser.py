"""The system's Chromium, without a window and without the network: for pictures and for tests of pages."""

import os
import shutil
import subprocess
from pathlib import Path

from triadbench.core.errors import UserError
from triadbench.kernels.scratch import scratch_folder

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_QUIET = (
    *"--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking".split(),
    *"--disable-component-update --disable-sync --disable-extensions --hide-scrollbars".split(),
    # No name is found and no address reached: what a page fetches would fail, and be seen to.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
)


def find() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def run(page: Path, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess:
    """Open a page from the disk, with a profile folder of its own, until its timers have run for eight seconds.

    Raises:
        UserError: no browser on the PATH, or it did not end.
    """
    executable = find()
    if executable is None:
        raise UserError(
            f"no browser: none of {', '.join(NAMES)} is on the PATH; install Chromium or Chrome, or leave the pictures "
            "out (the report itself needs none)"
        )
    # A browser run by root, as in a container, refuses to start with its sandbox.
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with scratch_folder() as profile:
        own = [*sandbox, f"--user-data-dir={profile}", "--virtual-time-budget=8000"]
        command = [executable, *_QUIET, *own, *arguments, page.resolve().as_uri()]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{executable} did not end in {timeout_s:.0f} s; try again") from error


def screenshot(page: Path, out: Path, width: int, height: int, scale: float = 2.0) -> None:
    """A page as a PNG of `width` x `height` CSS pixels, `scale` dots each. Raises UserError where none was made."""
    done = run(
        page,
        "--run-all-compositor-stages-before-draw",  # without it parts of a picture can be missing
        f"--screenshot={out.resolve()}",
        f"--window-size={width},{height}",
        f"--force-device-scale-factor={scale}",
    )
    if not out.exists() or out.stat().st_size == 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"{out}: the browser made no picture ({reason[0]})")
