"""The command `kernel`. Imports what it needs in its body."""

import itertools

import click

from triadbench.core.commands import console
from triadbench.core.errors import UserError


@click.command()
@click.argument("spec", default="ORIGINAL")
@click.option("--target", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Whose kernel.")
@click.option("--log/--no-log", default=True, help="Log mel or power mel; the CPU's kernel does both.")
@click.option("--lanes", type=click.Choice(["4", "8", "16"]), default="8", help="Frames in a vector of the CPU.")
@click.option("--prebuild", is_flag=True, help="Compile the CUDA kernels of all specs for other machines instead.")
@click.option("--arch", "archs", multiple=True, default=["sm_90"], help="GPU to prebuild for; may be repeated.")
@console.json_option
def kernel(
    spec: str, target: str, log: bool, lanes: str, prebuild: bool, archs: tuple[str, ...], as_json: bool
) -> None:
    """Print the mel kernel that is generated for SPEC (ORIGINAL, CHORD or WHISPER). Needs no GPU.

    For a GPU it is the program that numba-CUDA compiles, for the CPU the plan's steps and the butterflies in them.
    With --prebuild, PTX and machine code of all specs are written to the folder kernels/gpu/prebuilt: a machine with a
    GPU and the same sources needs that folder and no compiler.

    \b
    Examples:
      python cli.py kernel ORIGINAL --target cuda
      python cli.py kernel CHORD --lanes 16
      python cli.py kernel WHISPER --json
      python cli.py kernel --prebuild --arch sm_90 --arch sm_80
    """
    from triadbench.kernels import SPECS
    from triadbench.kernels.listing import kernel_listing

    source = click.get_current_context().get_parameter_source("archs")
    if source is click.core.ParameterSource.COMMANDLINE and not prebuild:
        raise click.UsageError("--arch goes with --prebuild")
    if prebuild:
        return _prebuild(archs, as_json)
    if spec.upper() not in SPECS:
        raise click.BadParameter(f"{spec!r} must be one of {', '.join(SPECS)}", param_hint="SPEC")
    text = kernel_listing(SPECS[spec.upper()], target, log=log, lanes=int(lanes))
    if as_json:
        console.print_json({"spec": spec.upper(), "target": target, "listing": text})
    else:
        console.write(text)


def _prebuild(archs: tuple[str, ...], as_json: bool) -> None:
    from triadbench.kernels import SPECS
    from triadbench.kernels.gpu import compile as gpu_compile
    from triadbench.kernels.gpu.mel_cuda import plan_for

    settings = itertools.product(SPECS.values(), ("float32", "int16"), (False, True))
    plans = [plan_for(spec, in_dtype=in_dtype, log=log) for spec, in_dtype, log in settings]
    files = []
    with console.progress("prebuild", "kernels") as progress:
        for done, plan in enumerate(plans, start=1):
            try:
                files += gpu_compile.prebuild(plan, archs)
            except RuntimeError as error:
                raise UserError(str(error)) from error
            progress(done, len(plans))
    folder, size = str(gpu_compile.PREBUILT), sum(file.stat().st_size for file in files)
    if as_json:
        console.print_json({"folder": folder, "archs": list(archs), "files": len(files), "bytes": size})
    else:
        console.write(f"{folder}: {len(files)} files, {size / 1e6:.1f} MB\n")
