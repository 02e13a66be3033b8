"""`cli.py` for torchrun, with a process that dies: dying.py MARKS NAME=VALUE MOMENT,... CLI-ARGUMENTS.

The process whose environment has NAME=VALUE kills itself at each moment once: "start" is before it joins the others,
"epoch 2" when the checkpoint of the first epoch is there and the second begins. MARKS is a folder for what has happened.
"""

import os
import runpy
import signal
import sys
import time
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[2] / "cli.py"), run_name="checkout")  # makes a checkout importable

from triadbench.core.training.epoch import OriginalRun  # noqa: E402
from triadbench.core.training.train import LAST  # noqa: E402


def main(marks: str, who: str, moments: str, *arguments: str) -> None:
    name, _, value = who.partition("=")
    out = Path(arguments[2])

    def moment(now: str) -> None:
        mark = Path(marks) / now
        if os.environ.get(name) == value and now in moments.split(",") and not mark.exists():
            while now != "start" and not (out / LAST).exists():
                time.sleep(0.01)
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    epoch = OriginalRun.train_epoch

    def epoch_or_death(run, number, *rest):
        if number == 1:
            moment("epoch 2")
        return epoch(run, number, *rest)

    OriginalRun.train_epoch = epoch_or_death
    moment("start")
    from triadbench.cli import main as command

    command(list(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
