"""What the machine is, and how fast it copies and multiplies: the roofs that every other figure is held against."""

from triadbench.bench.gpu.context import Context, gpu_state


def run(context: Context) -> str:
    """Records "gpu environment"."""
    context.add("gpu environment", {}, state=gpu_state())
    return str(context.environment["gpu"] or context.environment["cpu"])
