"""Small trainings for the tests, and a way to cut them off."""

from triadbench.core.training.settings import TrainConfig


def ours(pack, out, **changes):
    """Two epochs of 12 steps, of which steps 10 and 12 are reported."""
    return TrainConfig(
        **{"data": pack, "out": out, "epochs": 2, "batch_size": 3, "test_fraction": 0.25, "seed": 3, **changes}
    )


def original(pack, out, **changes):
    return TrainConfig(
        **{"data": pack, "out": out, "recipe": "original", "task": "type", "epochs": 2, "batch_size": 3, **changes}
    )


class Killed(Exception):
    pass


def killer(stage, **wanted):
    def report(event):
        if event["stage"] == stage and all(event[key] == value for key, value in wanted.items()):
            raise Killed

    return report
