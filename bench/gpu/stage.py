"""One stage of the GPU run, in a process of its own that `bench.gpu.run` starts, watches and ends."""

import faulthandler
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from triadbench.bench import records
from triadbench.bench.gpu.context import Context
from triadbench.core.errors import UserError

RESULT = "result.json"


def main(module: str, settings: str) -> None:
    """Run `module`'s stage; `settings` are a `Context`'s fields as JSON. Its summary, or the reason why it failed, is
    written to `RESULT` in the scratch folder; the exit code is 0 or 1."""
    _end_with_parent()
    faulthandler.enable()
    faulthandler.register(signal.SIGTERM, chain=True)  # at the time limit the log tells where it was
    fields = json.loads(settings)
    context = Context(**{**fields, "records": Path(fields["records"]), "scratch": Path(fields["scratch"])})
    try:
        result = {"summary": importlib.import_module(module).run(context)}
    except BaseException as error:
        traceback.print_exc()
        name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        result = {"reason": name + records.reason_of(error)}
    part = context.scratch / f"{RESULT}.part"
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(context.scratch / RESULT)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit("reason" in result)  # neither a thread left running nor a library's farewell may hold up the next stage


def _end_with_parent() -> None:
    """Leave a process that kills this whole process group when the run is gone, even if it was killed itself.

    stdin is a pipe that the run holds open. A thread would not do: compiled code may hold Python's lock for long.
    """
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.read(0, 1)
        os.killpg(0, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
