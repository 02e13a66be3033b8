"""The commands `data fetch`, `render`, `amp`, `degrade`, `pack` and `info`. Each imports what it needs in its body."""

from pathlib import Path
from typing import Any

import click

from triadbench.core.commands import console
from triadbench.core.constants import usable_cores
from triadbench.core.models.chords import VOICINGS

_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_MIXTURE_ONLY = ("songs", "midi", "chords", "midi_rows", "without")
_NOT_OF_MIXTURE = ("training_instruments", "style", "voicings", "octaves", "variants", "pack")
_source = click.argument("source", type=_PATH)
_out = click.argument("out", type=_PATH)
_seed = click.option("--seed", type=click.IntRange(0), default=0, help="Same seed, same bytes.")
_jobs = click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one a core]")


@click.group()
def data() -> None:
    """Get, make, pack and describe sets of chord clips.

    \b
    Examples:
      python cli.py data fetch data
      python cli.py data info data/audioPianoTriadDataset.zip
    """


@data.command()
@click.argument("out", type=_PATH, default=Path("data"))
@click.option("--unpack/--no-unpack", default=True, help="Unpack beside the archive (6.1 GB more).")
@click.option("--retries", type=click.IntRange(1), default=5, help="Attempts in a row without progress.")
@console.json_option
def fetch(out: Path, unpack: bool, retries: int, as_json: bool) -> None:
    """Download the Audio Piano Triads archive (3.8 GB, from Zenodo) into the folder OUT.

    A download that was cut goes on where it stopped. Length and checksum are those of the published record.

    \b
    Examples:
      python cli.py data fetch
      python cli.py data fetch data --no-unpack --json
    """
    from triadbench.core.data import fetch as source

    console.resume_hint("what has arrived is kept; the same command goes on from there")
    with console.progress("fetch", "B") as progress, console.progress("unpack", "B") as unpacking:
        result = source.fetch(out, progress=progress, unpack_progress=unpacking, unpack=unpack, retries=retries)
    _finish(result, as_json, f"{result['folder'] or result['archive']}")


@data.command()
@_out
@click.option("-n", "--clips", "n", type=click.IntRange(1, 1_000_000), default=4320, help="Number of clips.")
@click.option(
    "-i",
    "--instrument",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="synth:SEED, font:FILE:PROGRAM, font:FILE:BANK:PROGRAM or notes:FOLDER; repeat for more.  "
    "[default: synth:0 to synth:7]",
)
@click.option("--training-instruments", is_flag=True, help="The weighted instruments of the shipped model's training.")
@click.option(
    "--style",
    type=click.Choice(["dry", "clean", "room", "wild"]),
    default="clean",
    help="How much clips vary: not at all; onset, hands and level; also room and noise; everything.",
)
@click.option(
    "--voicing",
    "voicings",
    multiple=True,
    type=click.Choice([*VOICINGS, "mixed"]),
    help="Repeat for more; mixed draws them as the style says.  [default: root]",
)
@click.option("--octave", "octaves", type=click.IntRange(1, 7), multiple=True, default=(3, 4, 5), help="Of the root.")
@click.option("--variants", type=click.IntRange(1), default=1, help="Clips of each recording, as the original's ten.")
@_seed
@click.option("--pack", is_flag=True, help="Write a pack (see data pack) and not wav files.")
@click.option("--mixture", is_flag=True, help="A set to train on: sounds of every kind, and songs; see below.")
@click.option("--songs", type=click.IntRange(0), default=0, help="Rows of songs of ours.")
@click.option("--midi", type=_FOLDER, help="Folder of MIDI songs, each beside its .lab, or POP909.")
@click.option("--chords", type=_FOLDER, help="Folder of POP909-CL's scores, for the chords of POP909.")
@click.option("--midi-rows", type=click.IntRange(0), default=0, help="Rows of the MIDI songs.")
@click.option("--without", type=_FILE, help="Text with names of MIDI songs to leave out.")
@click.option("--banks", "cache", type=_PATH, default=Path("data/banks"), help="Folder that keeps the recorded notes.")
@_jobs
@console.json_option
def render(
    out: Path,
    sources: tuple[str, ...],
    training_instruments: bool,
    jobs: int | None,
    as_json: bool,
    mixture: bool,
    **options: Any,
) -> None:
    """Render a labelled set into the new folder OUT: chords mixed from notes, with the data set's protocol and names.

    Every note of an instrument is recorded once, by our own piano synthesiser, from a SoundFont (needs the program
    fluidsynth) or from a folder of note recordings (A4.wav, Fs3.flac, ...); any chord is then mixed from them.

    With --mixture, OUT is a set to train on, in rows of 4 s: --clips rows of single sounds (chords of all kinds on all
    training instruments, guitars, notes, noises), --songs rows of songs of ours, --midi-rows of those in --midi. After
    an interruption, the same command goes on.

    \b
    Examples:
      python cli.py data render data/set -n 4320
      python cli.py data render data/hard -n 1000 --style room --voicing inv1 --voicing open
      python cli.py data render data/piano.pack --pack -n 864 -i font:FluidR3_GM.sf2:0
      python cli.py data render data/train --mixture -n 42000 --songs 10000 --seed 1
    """
    from triadbench.core.data.render_set import RenderConfig, render_dataset
    from triadbench.core.render.note_banks import TRAINING

    context = click.get_current_context()
    flags = {parameter.name: parameter.opts[-1] for parameter in context.command.params}
    for name in _NOT_OF_MIXTURE if mixture else _MIXTURE_ONLY:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{flags[name]} {'does not go with' if mixture else 'needs'} --mixture")
    of_mixture = {name: options.pop(name) for name in _MIXTURE_ONLY}
    if mixture:
        instruments = [(source, 1.0) for source in sources] or TRAINING
        of_mixture |= {"clips": options["n"], "seed": options["seed"], "cache": options["cache"]}
        _render_mixture(as_json, out=out, instruments=instruments, workers=jobs or usable_cores(), **of_mixture)
        return
    if training_instruments and sources:
        raise click.UsageError("--training-instruments is a list of its own; leave out --instrument")
    voicings = options.pop("voicings") or ("root",)
    if "mixed" in voicings and len(voicings) > 1:
        raise click.UsageError("--voicing mixed draws all voicings; leave out the others")
    options |= {"voicings": None if voicings == ("mixed",) else voicings, "workers": jobs or usable_cores()}
    if training_instruments:
        options["weights"] = [instrument.weight for instrument in TRAINING]
        sources = tuple(instrument.source for instrument in TRAINING)
    config = RenderConfig(out, sources=list(sources) or [f"synth:{seed}" for seed in range(8)], **options)
    console.resume_hint("finished note banks are kept; the set itself is rendered anew")
    with console.progress("notes", "instruments") as notes, console.progress("render", "clips") as progress:
        result = render_dataset(config, bank_progress=notes, progress=progress)
    line = f"{result['n']} clips of {result['recordings']} recordings, {len(result['instruments'])} instruments"
    _finish(result, as_json, f"{line}, in {result['path']}")


def _render_mixture(as_json: bool, **options: Any) -> None:
    from triadbench.core.data.render_excerpts import ExcerptsConfig, render_excerpts

    console.resume_hint("finished parts and note banks are kept; the same command goes on")
    with console.progress("notes", "instruments") as notes, console.progress("render", "parts") as progress:
        result = render_excerpts(ExcerptsConfig(**options), bank_progress=notes, progress=progress)
    rows = ", ".join(f"{n} {kind}" for kind, n in result["rows"].items() if n)
    _finish(result, as_json, f"rows: {rows}; {result['parts']} parts in {result['path']}")


@data.command()
@_source
@_out
@_seed
@_jobs
@console.json_option
def amp(source: Path, out: Path, seed: int, jobs: int | None, as_json: bool) -> None:
    """Play every clip of SOURCE (folder, zip or pack) through a crunch amplifier into the new folder OUT.

    \b
    Examples:
      python cli.py data amp data/audio data/shred
      python cli.py data amp data/set.zip data/shred --seed 7 --jobs 2
    """
    from triadbench.core.data.copies import amplify_set

    with console.progress("amp", "clips") as progress:
        result = amplify_set(source, out, seed=seed, jobs=jobs, progress=progress)
    _finish(result, as_json, f"{result['n']} clips in {result['path']}")


@data.command()
@_source
@_out
@_seed
@console.json_option
def degrade(source: Path, out: Path, seed: int, as_json: bool) -> None:
    """Write worse recordings of SOURCE's clips into the pack OUT: a room (RT60 0.3-0.6 s), noise 20-30 dB below the
    sound, +-12 dB, +-10 cents, and a start up to 320 ms later.

    \b
    Examples:
      python cli.py data degrade data/set.zip data/worse.pack
      python cli.py data degrade data/set data/worse.pack --seed 3 --json
    """
    from triadbench.core.data.copies import degrade_set

    with console.progress("degrade", "clips") as progress:
        result = degrade_set(source, out, seed=seed, progress=progress)
    _finish(result, as_json, f"{result['n']} clips in {result['path']}")


@data.command()
@_source
@_out
@console.json_option
def pack(source: Path, out: Path, as_json: bool) -> None:
    """Pack SOURCE (folder or zip) into the new folder OUT: one memory-mapped array with an index.

    \b
    Examples:
      python cli.py data pack data/audio data/audio-pack
      python cli.py data pack data/audioPianoTriadDataset.zip data/pack --json
    """
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.data.pack import pack as write_pack

    with console.progress("check", "files") as checking, console.progress("pack", "clips") as progress:
        result = write_pack(open_dataset(source, progress=checking), out, progress=progress)
    _finish(result, as_json, f"{result['n']} clips in {result['path']} ({result['bytes'] / 1e6:.1f} MB)")


@data.command()
@_source
@click.option("--picture", type=_PATH, help="Interactive page (.html) to write.")
@console.json_option
def info(source: Path, picture: Path | None, as_json: bool) -> None:
    """Count SOURCE (folder, zip or pack) by every label; list lengths, levels, duplicates and skipped files.

    \b
    Examples:
      python cli.py data info data/audio
      python cli.py data info data/set.zip --picture set.html --json
    """
    from triadbench.core.data import describe as description
    from triadbench.core.data.dataset import open_dataset

    with console.progress("check", "files") as checking, console.progress("read", "clips") as progress:
        dataset = open_dataset(source, progress=checking)
        result = description.describe(dataset, progress=progress)
    if picture is not None:
        description.picture(result, dataset, picture)
        console.note(f"Picture: {picture}")
    if as_json:
        console.print_json(result)
        return
    click.echo(f"{result['n']} clips, {result['kind']}, {result['skipped']['n']} files skipped")
    counted = ("types", "roots", "octaves", "volumes", "voicings", "kinds")
    rows = [[label, name, count] for label in counted for name, count in result[label].items()]
    click.echo(console.table(["label", "value", "clips"], rows))
    spread = result["durations_s"]
    if spread["median"] is not None:
        click.echo("seconds a clip: {min:.3g} to {max:.3g}, median {median:.3g}".format(**spread))
    click.echo("duplicates: {clips} clips in {groups} groups".format(**result["duplicates"]))
    click.echo(f"silent: {result['silent']['n']}, unreadable: {result['unreadable']['n']}")
    console.list_skipped(result["skipped"]["files"])


def _finish(result: dict, as_json: bool, line: str) -> None:
    """Print a data command's result; skipped files are named on stderr."""
    if as_json:
        console.print_json(result)
    else:
        click.echo(console.printable(line))
        console.list_skipped(result.get("skipped", []))
