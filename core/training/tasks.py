"""The trainings of one command: one network for both tasks in our recipe, one for each in the original's."""

from __future__ import annotations

from pathlib import Path

from triadbench.core.training.train import RECIPES, Progress, TrainConfig, train


def train_tasks(settings: dict, task: str, resume: bool, progress: Progress | None = None) -> dict[str, dict]:
    """Train what `task` asks for; {task: training record}.

    The original has one network a task: "both" trains its two, into `out/type` and `out/root`, and with `resume` goes
    on with whichever is unfinished.

    Args:
        settings: fields of `core.training.train.TrainConfig`, without the task.
    """
    if task != "both" or "both" in RECIPES[settings["recipe"]].tasks:
        return {task: train(TrainConfig(**settings, task=task), resume=resume, progress=progress)}
    results = {}
    for each in RECIPES[settings["recipe"]].tasks:
        config = TrainConfig(**{**settings, "out": Path(settings["out"]) / each}, task=each)
        results[each] = train(config, resume=resume, progress=progress)
    return results
