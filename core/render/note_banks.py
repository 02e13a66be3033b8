"""Note banks: every note of an instrument recorded once, from which any chord can be mixed.

A bank is a folder with `notes.npy`, int16 (n_notes, n_layers, samples) at 16 kHz, each note scaled to its own peak,
and `bank.json`, which names the instrument and its source, and keeps every note's true peak. Notes ring undamped for
`SECONDS`; whoever mixes them releases the key.

A bank is made from one of three sources, written as a short text:

- `synth:7` or `synth:7:electric`: our own synthesiser (`core.render.synthesiser`) with seed 7, optionally of a family;
- `font:FILE.sf2:PROGRAM` or `font:FILE.sf2:BANK:PROGRAM`: a preset of a SoundFont, played by FluidSynth;
- `notes:FOLDER`: recordings of single notes named by their pitch (`A4.wav`, `piano-Fs3.flac`, `Db2_f.mp3`).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from triadbench.core.audio.io import AUDIO_SUFFIXES, read_audio
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path, file_digest
from triadbench.core.render import synthesiser
from triadbench.core.workers import run_all
from triadbench.kernels.scratch import scratch_folder

SECONDS = 4.2
"""Longer than a clip of 4 s, so that a detuned or early note does not run out."""
LOW_MIDI, HIGH_MIDI = 36, 96
LAYERS = (45, 80, 115)
"""MIDI velocities recorded: one each for the data set's piano, mezzo and forte."""
_SHARE, _LOCAL = "/usr/share", "/usr/local/share"
FONT_FOLDERS = (f"{_SHARE}/sounds/sf2", f"{_SHARE}/sounds/sf3", f"{_SHARE}/soundfonts", f"{_LOCAL}/soundfonts")

_FORMAT = 1
_FONT_RATE, _FONT_GAP = 2 * SAMPLE_RATE, 0.1
_NOTE_NAME = re.compile(r"(?:^|[^A-Za-z])([A-Ga-g])(#|s|b|f|♯|♭)?(-?\d)(?=$|[^0-9])")
_FARTHEST_BORROW = 7
_Record = Callable[[], tuple[str, str, np.ndarray]]
"""Records a source: name, family, and float32 (n_notes, n_layers, samples)."""


@dataclass(frozen=True)
class NoteBank:
    """The recorded notes of one instrument.

    Attributes:
        name: of the instrument, for people. source: the text that the bank was made from.
        family: free word, as "piano" or "guitar"; decides about strumming and guitar voicings.
        low, high: MIDI numbers of the ends of the longest run of notes of which all layers sound.
        first: MIDI number of the first of `notes`.
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
        """Open a bank folder; notes stay on disk until they are used. Raises UserError for no bank or a damaged one."""
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

    def stroke(self, note: int, velocity: float) -> tuple[int, float]:
        """The layer of `notes` for a MIDI note struck with a velocity, and the factor from its int16 to float."""
        layer = int(np.argmin(np.abs(np.array(LAYERS) - velocity)))
        # Twice the velocity is about four times the level, as General MIDI recommends.
        return layer, self.peaks[note - self.first, layer] * (velocity / LAYERS[layer]) ** 2 / 32768.0


@numba.njit(cache=True)
def mix_note(out, note, gain, start, step, release, decay):
    """Add `note`, times `gain`, to `out` from sample `start` on (a fraction; negative: the note began before the clip).

    The note is read at `step` samples a sample with a cubic through four points (Catmull-Rom), and dies by the factor
    `decay` a sample from sample `release` on.
    """
    damp = gain
    first = max(0, int(np.ceil(start)))
    for i in range(first, len(out)):
        x = (i - start) * step
        k = int(x)
        if k + 2 >= len(note):
            break
        f = np.float32(x - k)
        a = np.float32(note[k - 1]) if k > 0 else np.float32(0)
        b, c, d = np.float32(note[k]), np.float32(note[k + 1]), np.float32(note[k + 2])
        value = b + np.float32(0.5) * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))
        if i > release:
            damp *= decay
            if damp < 1e-6 * gain:
                break
        out[i] += value * damp


def _longest_run(sounding: np.ndarray) -> tuple[int, int]:
    """First and last index of the longest run of True in (n,): a chord must not fall into a gap between recordings."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sounding, [False]]).astype(int))).reshape(-1, 2)
    if not len(edges):
        raise ValueError("no note sounds")
    start, end = edges[np.argmax(edges[:, 1] - edges[:, 0])].tolist()
    return start, end - 1


def bank_for(source: str, cache: str | Path) -> Path:
    """Folder of a source's bank, built under `cache` if missing. Raises UserError where it cannot be read or played."""
    kind, _, rest = source.partition(":")
    readers = {"synth": _synthesiser, "font": _font, "notes": _folder}
    if kind not in readers or not rest:
        raise UserError(f"note source {source!r}: expected synth:SEED, font:FILE:PROGRAM or notes:FOLDER")
    record, signature = readers[kind](rest)
    key = json.dumps([_FORMAT, kind, signature, SECONDS, LOW_MIDI, HIGH_MIDI, LAYERS]).encode()
    path = Path(cache) / f"{kind}-{hashlib.sha256(key).hexdigest()[:16]}"
    if not (path / "bank.json").exists():
        try:
            with atomic_path(path, directory=True) as folder:
                _write(folder, source, *record())
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
    paths = run_all(partial(partial, bank_for, cache=cache), (), distinct, workers, progress=progress)
    path_of = dict(zip(distinct, paths, strict=True))
    return [path_of[source] for source in sources]


def _write(folder: Path, source: str, name: str, family: str, waveforms: np.ndarray) -> None:
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


def _synthesiser(rest: str) -> tuple[_Record, list]:
    """What records the source `synth:REST`, and everything that its sound depends on."""
    seed_text, _, family = rest.partition(":")
    if not seed_text.isdecimal():
        raise UserError(f"note source 'synth:{rest}': the seed must be a whole number, as in synth:7")
    seed = int(seed_text)

    def record() -> tuple[str, str, np.ndarray]:
        try:
            instrument = synthesiser.make_instrument(seed, family or None)
        except ValueError as error:
            raise UserError(f"note source 'synth:{rest}': {error}") from error
        waveforms = _empty()
        for i, layers in enumerate(waveforms):
            for velocity, waveform in zip(LAYERS, layers, strict=True):
                note = synthesiser.render_note(instrument, LOW_MIDI + i, velocity / 127, SECONDS, SAMPLE_RATE)
                waveform[: len(note)] = note[: len(waveform)]
        return f"synthesiser, seed {seed}", instrument.family, waveforms

    # The source file's digest, so that a bank is built again when its maker changes.
    return record, [seed, family, file_digest(Path(__file__).with_name("synthesiser.py"))]


# General MIDI programs by how their notes are mixed: guitars are strummed.
_GM_FAMILIES = {**{p: "piano" for p in range(8)}, **{p: "guitar" for p in range(24, 32)}, 105: "guitar", 46: "guitar"}


def find_font(name: str) -> Path:
    """Path of a SoundFont given by path, or by file name in `FONT_FOLDERS`. Raises UserError where there is none."""
    for folder in ("", *FONT_FOLDERS):
        if (path := Path(folder) / name).is_file():
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


def _font(rest: str) -> tuple[_Record, list]:
    """As `_synthesiser`, of the source `font:REST`."""
    file_name, *numbers = rest.split(":")
    if not 1 <= len(numbers) <= 2 or not all(number.isdecimal() and int(number) < 128 for number in numbers):
        expected = "font:FILE:PROGRAM or font:FILE:BANK:PROGRAM, numbers 0-127"
        raise UserError(f"note source 'font:{rest}': expected {expected}")
    path = find_font(file_name)
    bank, program = map(int, numbers if len(numbers) == 2 else ("0", *numbers))
    # fluidsynth plays another font, or another preset, in place of one that is not there, and reports success.
    if (bank, program) not in _font_presets(path):
        raise UserError(f"{path} has no preset {bank}:{program}; choose another program, or FILE:BANK:PROGRAM")

    def record() -> tuple[str, str, np.ndarray]:
        return f"{path.stem} {bank}:{program}", _GM_FAMILIES.get(program, "other"), _play_font(path, bank, program)

    return record, [path.name, path.stat().st_size, bank, program]


def _play_font(path: Path, bank: int, program: int) -> np.ndarray:
    """Every note and layer of a preset, played by FluidSynth dry; float32 (notes, layers, samples)."""
    import mido
    import soundfile
    import soxr

    fluidsynth = shutil.which("fluidsynth")
    if fluidsynth is None:
        way_out = "which is not installed (Debian: apt install fluidsynth)"
        raise UserError(f"SoundFonts need the program fluidsynth, {way_out}")
    waveforms = _empty()
    slot = SECONDS + _FONT_GAP
    ticks = 1000  # of a millisecond each: 1000 ticks a beat at 60 beats a minute
    control = partial(mido.Message, "control_change")
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1_000_000), control(control=0, value=bank)])
    track.append(mido.Message("program_change", program=program))
    for note in range(LOW_MIDI, HIGH_MIDI + 1):
        for velocity in LAYERS:
            track.append(mido.Message("note_on", note=note, velocity=velocity))
            track.append(mido.Message("note_off", note=note, time=round(SECONDS * ticks)))
            track.append(control(control=120, value=0))  # all sound off: no tail in the next slot
            track.append(control(control=7, value=100, time=round(_FONT_GAP * ticks)))
    midi = mido.MidiFile(ticks_per_beat=ticks, tracks=[track])
    with scratch_folder() as scratch:
        score, audio = scratch / "notes.mid", scratch / "notes.wav"
        midi.save(score)
        command = [fluidsynth, "-q", "-n", "-i", "-R", "0", "-C", "0", "-g", "0.6", "-r", str(_FONT_RATE)]
        command += ["-T", "wav", "-O", "float", "-F", str(audio), str(path), str(score)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0 or not audio.exists():
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"fluidsynth could not play {path}: {reason[0]}")
        with soundfile.SoundFile(audio) as file:
            for k, waveform in enumerate(waveforms.reshape(-1, waveforms.shape[-1])):
                file.seek(min(round(k * slot * _FONT_RATE), file.frames))
                stereo = file.read(round(SECONDS * _FONT_RATE), dtype="float32", always_2d=True)
                note = soxr.resample(stereo.mean(axis=1), _FONT_RATE, SAMPLE_RATE, "HQ")[: len(waveform)]
                waveform[: len(note)] = note
    return waveforms


def note_of_name(stem: str) -> int | None:
    """MIDI number of the last pitch name in a file name (`piano-Fs3` is 54; C4 is 60), or None."""
    names = _NOTE_NAME.findall(stem)
    if not names:
        return None
    letter, accidental, octave = names[-1]
    pitch = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[letter.upper()]
    return 12 * (int(octave) + 1) + pitch + {"#": 1, "s": 1, "♯": 1, "b": -1, "f": -1, "♭": -1, "": 0}[accidental]


def _folder(rest: str) -> tuple[_Record, list]:
    """As `_synthesiser`, of the source `notes:REST`."""
    folder = Path(rest)
    if not folder.is_dir():
        raise UserError(f"note source 'notes:{rest}': no such folder")
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        midi = note_of_name(path.stem)
        if path.suffix.lower() in AUDIO_SUFFIXES and midi is not None and path.is_file():
            files.setdefault(midi, path)
    if not files:
        raise UserError(f"note source 'notes:{rest}': no audio file there is named by a pitch, as A4.wav or Fs3.flac")
    midis = range(LOW_MIDI, HIGH_MIDI + 1)
    usable = [midi for midi in midis if min(abs(midi - other) for other in files) <= _FARTHEST_BORROW]
    if not usable:
        raise UserError(f"note source 'notes:{rest}': its notes lie outside MIDI {LOW_MIDI}-{HIGH_MIDI}")

    def record() -> tuple[str, str, np.ndarray]:
        import soxr

        waveforms = _empty()
        recordings = {}
        for midi, path in files.items():
            waveform, rate = read_audio(path)
            # Without the silence before the note: from 5 ms before the first sample above 2 % of the peak.
            start = int(np.argmax(np.abs(waveform) > 0.02 * np.abs(waveform).max())) - round(0.005 * rate)
            recordings[midi] = waveform[max(start, 0) :], rate
        for midi in usable:
            nearest = min(recordings, key=lambda other: (abs(other - midi), other))
            waveform, rate = recordings[nearest]
            # Played at another speed, a recording sounds at another pitch.
            out_rate = SAMPLE_RATE * 2 ** ((nearest - midi) / 12)
            note = soxr.resample(waveform, rate, out_rate, "HQ")[: waveforms.shape[-1]]
            waveforms[midi - LOW_MIDI, :, : len(note)] = note
        return folder.name, "guitar" if "guitar" in folder.name.lower() else "other", waveforms

    try:
        # Contents, not names and sizes: two instruments recorded alike have the same of both.
        return record, [folder.name, [[path.name, file_digest(path)] for path in files.values()]]
    except OSError as error:
        raise UserError(f"note source 'notes:{rest}': {error.filename} cannot be read ({error.strerror})") from error


LICENCES = {
    "synth": "this project's own synthesiser (MIT)",
    "MuseScore_General_Full.sf2": "S. Christian Collins, Frank Wen and others: MIT, parts CC0 or public domain",
    "sf_GMbank.sf2": "csound's General MIDI bank: public domain",
    "TimGM6mb.sf2": "TimGM6mb, Tim Brechbill: GPL-2",
}


class Training(NamedTuple):
    """A note source and how often it plays, relative to the others."""

    source: str
    weight: float


def _presets(file: str, weights: str) -> list[Training]:
    """Presets of a SoundFont; `weights` lists them as PRESET=WEIGHT."""
    pairs = [pair.split("=") for pair in weights.split()]
    return [Training(f"font:{file}:{preset}", float(weight)) for preset, weight in pairs]


TRAINING = (
    *(Training(f"synth:{seed}", 1.0) for seed in range(48)),
    # Grand, bright, honky-tonk, electric grand, tine and FM piano, harpsichord, clavinet, celesta, vibraphone,
    # dulcimer, accordion, guitars (nylon, steel, jazz, clean, muted), pizzicato, harp, banjo, mellow grand, 12-string.
    *_presets(
        "MuseScore_General_Full.sf2",
        "0=5 1=2 3=2 2=2 4=2.5 5=2.5 6=1 7=1 8=0.7 11=0.7 15=0.7 21=0.5 24=2.5 25=2.5 26=2 27=2 28=0.7 45=0.5 46=1 "
        "105=0.7 8:0=2 8:25=1",
    ),
    *_presets(
        "sf_GMbank.sf2", "0=4 1=2 2=3 3=1.5 4=2 5=2 6=1 7=1 11=0.7 15=0.7 21=0.5 24=2 25=2 26=1.5 27=1.5 46=1 105=0.7"
    ),
    *_presets("TimGM6mb.sf2", "0=3 10=0.5 46=0.7"),
)
"""The instruments that our model is trained on.

A piano that is kept for testing must never appear. Presets of TimGM6mb that share their recordings with csound's bank
are left out: twice the same note teaches nothing.
"""
