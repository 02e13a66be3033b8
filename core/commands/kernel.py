"""The command `kernel`. Imports what it needs in its body."""

import click

from triadbench.core.commands import console


@click.command()
@click.argument("spec", default="ORIGINAL")
@click.option("--target", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Whose kernel.")
@click.option("--log/--no-log", default=True, help="Log mel or power mel; the CPU's kernel does both.")
@click.option("--lanes", type=click.Choice(["4", "8", "16"]), default="8", help="Frames in a vector of the CPU.")
@console.json_option
def kernel(spec: str, target: str, log: bool, lanes: str, as_json: bool) -> None:
    """Print the mel kernel that is generated for SPEC (ORIGINAL, CHORD or WHISPER). Needs no GPU.

    For a GPU it is the program that numba-CUDA compiles, for the CPU the plan's steps and the butterflies in them.

    \b
    Examples:
      python cli.py kernel ORIGINAL --target cuda
      python cli.py kernel CHORD --lanes 16
      python cli.py kernel WHISPER --json
    """
    from triadbench.kernels import SPECS
    from triadbench.kernels.listing import kernel_listing

    if spec.upper() not in SPECS:
        raise click.BadParameter(f"{spec!r} must be one of {', '.join(SPECS)}", param_hint="SPEC")
    text = kernel_listing(SPECS[spec.upper()], target, log=log, lanes=int(lanes))
    if as_json:
        console.print_json({"spec": spec.upper(), "target": target, "listing": text})
    else:
        console.write(text)
