"""Note banks: every note of an instrument recorded once, from which any chord can be mixed.

A bank is a folder with `notes.npy`, int16 (n_notes, n_layers, samples) at 16 kHz, each note scaled to its own peak,
and `bank.json`, which names the instrument, its source and licence, and keeps every note's true peak. Notes ring
undamped for `SECONDS`; whoever mixes them releases the key.

A bank is made from one of three sources, written as a short text:

- `synth:7` or `synth:7:electric`: our own synthesiser (`core.render.synthesiser`) with seed 7, optionally of a family;
- `font:FILE.sf2:PROGRAM` or `font:FILE.sf2:BANK:PROGRAM`: a preset of a SoundFont, played by FluidSynth;
- `notes:FOLDER`: recordings of single notes named by their pitch (`A4.wav`, `piano-Fs3.flac`, `Db2_f.mp3`).
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import multiprocessing
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path, file_digest
from triadbench.core.workers import begin

SECONDS = 4.2
"""Longer than a clip of 4 s, so that a detuned or early note does not run out."""
LOW_MIDI, HIGH_MIDI = 36, 96
LAYERS = (45, 80, 115)
"""MIDI velocities recorded: one each for the data set's piano, mezzo and forte."""
FONT_FOLDERS = (
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
)

_FORMAT = 1
_FONT_RATE = 2 * SAMPLE_RATE
_FONT_GAP = 0.1
_NOTE_NAME = re.compile(r"(?:^|[^A-Za-z])([A-Ga-g])(#|s|b|f|♯|♭)?(-?\d)(?=$|[^0-9])")
_FARTHEST_BORROW = 7


@dataclass(frozen=True)
class NoteBank:
    """The recorded notes of one instrument.

    Attributes:
        name: instrument, as a person would say it.
        source: the text that the bank was made from.
        family: free word, as "piano" or "guitar"; decides about strumming and guitar voicings.
        low, high: MIDI numbers of the ends of the longest run of notes of which all layers sound.
        first: MIDI number of `notes[0]`.
        notes: int16 (n_notes, n_layers, samples), memory-mapped, each note scaled to full scale.
        peaks: float32 (n_notes, n_layers), the true peak of each note, with the loudest note of the bank at 1.
    """

    name: str
    source: str
    family: str
    low: int
    high: int
    first: int
    notes: np.ndarray
    peaks: np.ndarray

    @classmethod
    def load(cls, path: str | Path) -> NoteBank:
        """Open a bank folder; the notes stay on disk until they are used.

        Raises:
            UserError: not a bank, or a damaged one.
        """
        path = Path(path)
        try:
            meta = json.loads((path / "bank.json").read_text())
            notes = np.load(path / "notes.npy", mmap_mode="r", allow_pickle=False)
            peaks = np.asarray(meta["peaks"], dtype=np.float32)
            if meta["format"] != _FORMAT or notes.dtype != np.int16 or notes.shape[:2] != peaks.shape:
                raise ValueError("its parts do not fit together")
            first = int(meta["first"])
            low, high = _longest_run(peaks.min(axis=1) > 0)
            return cls(meta["name"], meta["source"], meta["family"], first + low, first + high, first, notes, peaks)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise UserError(f"{path} is not a note bank ({error}); delete it, and it is built again") from error


def _longest_run(sounding: np.ndarray) -> tuple[int, int]:
    """First and last index of the longest run of True in (n,): a chord must not fall into a gap between recordings."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sounding, [False]]).astype(int)))
    if not len(edges):
        raise ValueError("no note sounds")
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest]) - 1


def bank_for(source: str, cache: str | Path) -> Path:
    """Folder of the bank that `source` describes, built under `cache` if it is not there yet.

    Raises:
        UserError: a source that cannot be read or played, with the way out.
    """
    kind, _, rest = source.partition(":")
    builders = {"synth": _build_synth, "font": _build_font, "notes": _build_folder}
    if kind not in builders or not rest:
        raise UserError(f"note source {source!r}: expected synth:SEED, font:FILE:PROGRAM or notes:FOLDER")
    plan, signature = builders[kind](rest)
    key = hashlib.sha256(
        json.dumps([_FORMAT, kind, signature, SECONDS, LOW_MIDI, HIGH_MIDI, LAYERS]).encode()
    ).hexdigest()
    path = Path(cache) / f"{kind}-{key[:16]}"
    if not (path / "bank.json").exists():
        try:
            with atomic_path(path, directory=True) as folder:
                name, family, waveforms = plan()
                _write(folder, name, source, family, waveforms)
        except UserError:
            # Another process may have built the same bank meanwhile, and then the place is taken.
            if not (path / "bank.json").exists():
                raise
    return path


def build_banks(
    sources: Sequence[str], cache: str | Path, *, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Folders of the banks of all `sources`, built in parallel where missing, in the order of `sources`."""
    distinct = list(dict.fromkeys(sources))
    paths: dict[str, Path] = {}
    if workers == 1 or len(distinct) == 1:
        for done, source in enumerate(distinct, 1):
            paths[source] = bank_for(source, cache)
            if progress is not None:
                progress(done, len(distinct))
        return [paths[source] for source in sources]
    # spawn: a fork of a process with running threads may hang, and Python 3.12 warns of it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(distinct)), context, begin) as pool:
        futures = {pool.submit(bank_for, source, cache): source for source in distinct}
        try:
            for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
                paths[futures[future]] = future.result()
                if progress is not None:
                    progress(done, len(distinct))
            return [paths[source] for source in sources]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write(folder: Path, name: str, source: str, family: str, waveforms: np.ndarray) -> None:
    """Write float32 (n_notes, n_layers, samples) as a bank."""
    peaks = np.abs(waveforms).max(axis=-1)
    if not peaks.max() > 0:
        raise UserError(f"{source}: all notes are silent; is this an instrument that plays {LOW_MIDI}-{HIGH_MIDI}?")
    scale = np.where(peaks > 0, 32767 / np.maximum(peaks, 1e-9), 0)
    np.save(folder / "notes.npy", np.rint(waveforms * scale[..., None]).astype(np.int16))
    relative = [[round(float(value), 6) for value in row] for row in peaks / peaks.max()]
    meta = {"format": _FORMAT, "name": name, "source": source, "family": family, "first": LOW_MIDI, "peaks": relative}
    (folder / "bank.json").write_text(json.dumps(meta))


def _empty() -> np.ndarray:
    return np.zeros((HIGH_MIDI - LOW_MIDI + 1, len(LAYERS), round(SECONDS * SAMPLE_RATE)), dtype=np.float32)


def _build_synth(rest: str):
    seed_text, _, family = rest.partition(":")
    if not seed_text.isdecimal():
        raise UserError(f"note source 'synth:{rest}': the seed must be a whole number, as in synth:7")
    seed = int(seed_text)

    def plan():
        from triadbench.core.render.synthesiser import make_instrument, render_note

        try:
            instrument = make_instrument(seed, family or None)
        except ValueError as error:
            raise UserError(f"note source 'synth:{rest}': {error}") from error
        waveforms = _empty()
        for i in range(waveforms.shape[0]):
            for j, velocity in enumerate(LAYERS):
                note = render_note(instrument, LOW_MIDI + i, velocity / 127, seconds=SECONDS, sample_rate=SAMPLE_RATE)
                waveforms[i, j, : len(note)] = note[: waveforms.shape[-1]]
        return f"synthesiser, seed {seed}", instrument.family, waveforms

    return plan, [seed, family, _module_digest("synthesiser.py")]


def _module_digest(name: str) -> str:
    """Digest of our own source file, so that a bank is built again when its maker changes."""
    return hashlib.sha256((Path(__file__).parent / name).read_bytes()).hexdigest()


# General MIDI programs by what is done to the sound when it is mixed.
_GM_FAMILIES = {**{p: "piano" for p in range(8)}, **{p: "guitar" for p in range(24, 32)}, 105: "guitar", 46: "guitar"}


def find_font(name: str) -> Path:
    """Path of a SoundFont given by path, or by file name in the folders where systems keep them.

    Raises:
        UserError: no such file; says where it was looked for.
    """
    candidates = [Path(name), *(Path(folder) / name for folder in FONT_FOLDERS)]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"SoundFont {name} not found here nor in {', '.join(FONT_FOLDERS)}; install it or give its path")


def _font_presets(path: Path) -> set[tuple[int, int]]:
    """(bank, program) of every preset in a SoundFont: its `phdr` chunk (SoundFont 2.04 specification, 7.2)."""
    try:
        with open(path, "rb") as file:
            riff, _, form = struct.unpack("<4sI4s", file.read(12))
            if (riff, form) != (b"RIFF", b"sfbk"):
                raise ValueError("no RIFF file of form sfbk")
            while True:
                name, size = struct.unpack("<4sI", file.read(8))
                if name == b"phdr":
                    rows = file.read(size)
                    if len(rows) < size:
                        raise ValueError("truncated")
                    # The last row marks the end.
                    return {(bank, program) for program, bank in struct.iter_unpack("<20xHH14x", rows[:-38])}
                if name == b"LIST" and file.read(4) == b"pdta":
                    continue  # the chunks in this list follow
                file.seek(size - 4 * (name == b"LIST") + size % 2, 1)
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f"{path} is not a SoundFont (.sf2 or .sf3), or a damaged one ({error})") from error


def _build_font(rest: str):
    file_name, *numbers = rest.split(":")
    if not 1 <= len(numbers) <= 2 or not all(number.isdecimal() and int(number) < 128 for number in numbers):
        raise UserError(
            f"note source 'font:{rest}': expected font:FILE:PROGRAM or font:FILE:BANK:PROGRAM, numbers 0-127"
        )
    path = find_font(file_name)
    program = int(numbers[-1])
    bank = int(numbers[0]) if len(numbers) == 2 else 0
    # fluidsynth plays another font, or another preset, in place of one that is not there, and reports success.
    if (bank, program) not in _font_presets(path):
        raise UserError(f"{path} has no preset {bank}:{program}; choose another program, or FILE:BANK:PROGRAM")

    def plan():
        waveforms = _play_font(path, bank, program)
        return f"{path.stem} {bank}:{program}", _GM_FAMILIES.get(program, "other"), waveforms

    return plan, [path.name, path.stat().st_size, bank, program]


def _play_font(path: Path, bank: int, program: int) -> np.ndarray:
    """Every note and layer of a preset, played by FluidSynth dry; float32 (notes, layers, samples)."""
    import mido
    import soundfile
    import soxr

    fluidsynth = shutil.which("fluidsynth")
    if fluidsynth is None:
        raise UserError(
            "SoundFonts need the program fluidsynth, which is not installed (Debian: apt install fluidsynth)"
        )
    waveforms = _empty()
    slot = SECONDS + _FONT_GAP
    ticks = 1000  # of a millisecond each: 1000 ticks a beat at 60 beats a minute
    midi = mido.MidiFile(ticks_per_beat=ticks)
    track = mido.MidiTrack()
    midi.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=1_000_000))
    track.append(mido.Message("control_change", control=0, value=bank))
    track.append(mido.Message("program_change", program=program))
    for note in range(LOW_MIDI, HIGH_MIDI + 1):
        for velocity in LAYERS:
            track.append(mido.Message("note_on", note=note, velocity=velocity))
            track.append(mido.Message("note_off", note=note, time=round(SECONDS * ticks)))
            track.append(
                mido.Message("control_change", control=120, value=0)
            )  # all sound off: no tail in the next slot
            track.append(mido.Message("control_change", control=7, value=100, time=round(_FONT_GAP * ticks)))
    with tempfile.TemporaryDirectory() as scratch:
        score, audio = Path(scratch) / "notes.mid", Path(scratch) / "notes.wav"
        midi.save(score)
        command = [fluidsynth, "-q", "-n", "-i", "-R", "0", "-C", "0", "-g", "0.6", "-r", str(_FONT_RATE)]
        command += ["-T", "wav", "-O", "float", "-F", str(audio), str(path), str(score)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0 or not audio.exists():
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"fluidsynth could not play {path}: {reason[0]}")
        with soundfile.SoundFile(audio) as file:
            for i in range(waveforms.shape[0]):
                for j in range(len(LAYERS)):
                    file.seek(min(round((i * len(LAYERS) + j) * slot * _FONT_RATE), file.frames))
                    stereo = file.read(round(SECONDS * _FONT_RATE), dtype="float32", always_2d=True)
                    note = soxr.resample(stereo.mean(axis=1), _FONT_RATE, SAMPLE_RATE, "HQ")[: waveforms.shape[-1]]
                    waveforms[i, j, : len(note)] = note
    return waveforms


def note_of_name(stem: str) -> int | None:
    """MIDI number of the last pitch name in a file name (`piano-Fs3` is 54; C4 is 60), or None."""
    found = _NOTE_NAME.findall(stem)
    if not found:
        return None
    letter, accidental, octave = found[-1]
    pitch = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[letter.upper()]
    shift = {"#": 1, "s": 1, "♯": 1, "b": -1, "f": -1, "♭": -1, "": 0}[accidental]
    return 12 * (int(octave) + 1) + pitch + shift


def _build_folder(rest: str):
    folder = Path(rest)
    if not folder.is_dir():
        raise UserError(f"note source 'notes:{rest}': no such folder")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        midi = note_of_name(path.stem)
        if path.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3") and midi is not None and path.is_file():
            found.setdefault(midi, path)
    if not found:
        raise UserError(f"note source 'notes:{rest}': no audio file there is named by a pitch, as A4.wav or Fs3.flac")
    lacking = [m for m in range(LOW_MIDI, HIGH_MIDI + 1) if min(abs(m - have) for have in found) > _FARTHEST_BORROW]
    usable = [m for m in range(LOW_MIDI, HIGH_MIDI + 1) if m not in lacking]
    if not usable:
        raise UserError(f"note source 'notes:{rest}': its notes lie outside MIDI {LOW_MIDI}-{HIGH_MIDI}")

    def plan():
        import soxr

        from triadbench.core.audio.io import read_audio

        waveforms = _empty()
        recordings = {}
        for midi, path in found.items():
            waveform, rate = read_audio(path)
            recordings[midi] = _trim(waveform, rate), rate
        for midi in usable:
            nearest = min(recordings, key=lambda have: (abs(have - midi), have))
            waveform, rate = recordings[nearest]
            # Played at another speed, a recording sounds at another pitch.
            out_rate = SAMPLE_RATE * 2 ** ((nearest - midi) / 12)
            note = soxr.resample(waveform, rate, out_rate, "HQ")[: waveforms.shape[-1]]
            waveforms[midi - LOW_MIDI, :, : len(note)] = note
        family = "guitar" if "guitar" in folder.name.lower() else "other"
        return folder.name, family, waveforms

    try:
        # Contents, not names and sizes: two instruments recorded alike have the same of both.
        return plan, [folder.name, [[path.name, file_digest(path)] for path in found.values()]]
    except OSError as error:
        raise UserError(f"note source 'notes:{rest}': {error.filename} cannot be read ({error.strerror})") from error


def _trim(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Without the silence before the note: from 5 ms before the first sample above 2 % of the peak."""
    loud = np.abs(waveform) > 0.02 * np.abs(waveform).max()
    start = int(np.argmax(loud)) - round(0.005 * rate)
    return waveform[max(start, 0) :]
