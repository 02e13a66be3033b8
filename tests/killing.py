"""`cli.py` that is killed while it writes: killing.py AT DELAY CLI-ARGUMENTS.

It counts what Python does to files (opened for writing, made, renamed, removed) and sends itself SIGKILL so many seconds
after number AT. Where it comes to its end the last line on stderr is the count. RECORD_URL is where `data fetch` asks.
"""

import atexit
import os
import runpy
import signal
import sys
import tempfile
import threading

WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree"}


def main(cli: str, at: int, delay: float) -> None:
    runpy.run_path(cli, run_name="checkout")  # makes a checkout importable
    if url := os.environ.get("RECORD_URL"):
        from triadbench.core.data import fetch

        fetch.fetch.__kwdefaults__["record_url"] = url
    count = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event in WRITES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE):
            count += 1
            if count == at:
                threading.Timer(delay, die).start() if delay else die()

    tempfile.gettempdir()  # Python itself tries with a file of four bytes whether it can write there
    sys.addaudithook(hook)
    atexit.register(lambda: print(count, file=sys.stderr))
    runpy.run_path(cli, run_name="__main__")


if __name__ == "__main__":
    at, delay = int(sys.argv[1]), float(sys.argv[2])
    sys.argv[:3] = [os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli.py")]
    main(sys.argv[0], at, delay)
