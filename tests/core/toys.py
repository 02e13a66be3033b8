"""Small instruments, sets and models for the tests: chords of sines, and networks whose weights are set by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from triadbench.core.audio.io import to_int16, write_wav
from triadbench.core.data.pack import new_pack
from triadbench.core.models.checkpoint import Checkpoint, save
from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, ClipName, root_pitch_class
from triadbench.core.models.networks import ChordNet, OriginalNet
from triadbench.core.models.prediction import describe
from triadbench.core.models.spelling import read_chord
from triadbench.core.render.note_banks import HIGH_MIDI, LAYERS, LOW_MIDI, NoteBank
from triadbench.kernels import MelSpectrogram
from triadbench.kernels.spec import CHORD, ORIGINAL

RATE = 16_000


def frequency(midi: float) -> float:
    return 440.0 * 2.0 ** ((midi - 69) / 12)


def close_position(root: int, chord_type: int, octave: int = 5) -> list[int]:
    """MIDI numbers of a chord in root position, spelled here a second time so that a wrong table shows."""
    return [12 * (octave + 1) + root_pitch_class(root) + step for step in TYPE_INTERVALS[chord_type]]


def chord(root: int, chord_type: int, octave: int = 5, seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    """A decaying chord of sines, float32 (samples,), peak under 0.6."""
    t = np.arange(round(seconds * rate)) / rate
    tones = [np.sin(2 * np.pi * frequency(note) * t) for note in close_position(root, chord_type, octave)]
    return (0.2 * sum(tones) * np.exp(-0.5 * t)).astype(np.float32)


def pitch_of(waveform: np.ndarray, near_midi: float, rate: int = RATE) -> float:
    """MIDI number, with its fraction, of the strongest partial within a semitone of `near_midi`."""
    size = 1 << 18
    power = np.log(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), size)) + 1e-12)
    low, high = (int(frequency(near_midi + side) * size / rate) for side in (-1, 1))
    peak = low + int(np.argmax(power[low : high + 1]))
    before, at, after = power[peak - 1 : peak + 2]
    exact = peak + 0.5 * (before - after) / (before - 2 * at + after)
    return 69 + 12 * np.log2(exact * rate / size / 440)


def sounding(waveform: np.ndarray, floor: float = 0.1, rate: int = RATE) -> set[int]:
    """MIDI numbers of all sines in a sound that reach `floor` of the strongest; for sounds without overtones."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    frequencies = np.arange(len(spectrum)) * rate / len(waveform)
    loud = frequencies[spectrum > floor * spectrum.max()]
    return {int(note) for note in np.rint(69 + 12 * np.log2(loud / 440))}


# --- instruments -----------------------------------------------------------------------------------------------------


def sine_bank(family: str = "piano", low: int = LOW_MIDI, high: int = HIGH_MIDI) -> NoteBank:
    """Every note a decaying sine; the second layer adds its third partial, the third layer adds more of it."""
    t = np.arange(round(4.2 * RATE)) / RATE
    notes = np.zeros((high - low + 1, len(LAYERS), len(t)), dtype=np.int16)
    for i in range(len(notes)):
        phase = 2 * np.pi * frequency(low + i) * t
        for j in range(len(LAYERS)):
            wave = (np.sin(phase) + 0.3 * j * np.sin(3 * phase)) * np.exp(-0.5 * t)
            notes[i, j] = np.rint(32767 * wave / np.abs(wave).max())
    peaks = np.full(notes.shape[:2], 0.5, dtype=np.float32)
    return NoteBank("sines", "by hand", family, low, high, low, notes, peaks)


def write_bank(folder: Path, bank: NoteBank) -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "notes.npy", bank.notes)
    meta = {
        "format": 1,
        "name": bank.name,
        "source": bank.source,
        "family": bank.family,
        "first": bank.first,
        "peaks": bank.peaks.tolist(),
    }
    (folder / "bank.json").write_text(json.dumps(meta))
    return folder


def note_folder(folder: Path, names: Iterable[str], midi: Iterable[int], rate: int = 22_050) -> Path:
    """Recordings of single notes as a user may have them: stereo, 0.2 s of silence first."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(4.3 * rate)) / rate
    for name, note in zip(names, midi, strict=True):
        wave = np.sin(2 * np.pi * frequency(note) * t) * np.exp(-0.5 * t) * 0.5
        wave = np.concatenate([np.zeros(rate // 5), wave])
        soundfile.write(folder / name, np.stack([wave, wave * 0.5], axis=1), rate)
    return folder


def whole_note_folder(folder: Path) -> Path:
    """Nine notes from which every note of a bank can be borrowed."""
    notes = (36, 44, 52, 60, 66, 72, 80, 88, 96)
    names = ("C2.wav", "Ab2.wav", "E3.wav", "C4.wav", "Fs4.wav", "C5.wav", "G#5.wav", "E6.wav", "C7.wav")
    return note_folder(folder, names, notes)


# --- sets ------------------------------------------------------------------------------------------------------------


def all_names(octave: int = 5, volume: str = "m", example: int = 0, voicing: str = "root") -> list[ClipName]:
    """All 48 chords."""
    return [ClipName(root, kind, octave, volume, example, voicing) for root in range(12) for kind in range(4)]


def write_set(folder: Path, names: Sequence[ClipName]) -> Path:
    """A folder of one wav a name, with the sound that the name says."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_wav(folder / f"{name.format()}.wav", chord(name.root, name.type, name.octave or 5))
    return folder


def write_pack(out: Path, n: int = 48, per_recording: int = 2, seed: int = 0) -> Path:
    """A pack of `n` noisy chords, `per_recording` variants of each recording."""
    rng = np.random.default_rng(seed)
    keys = rng.permutation(48)
    with new_pack(out, n) as writer:
        index = []
        for row in range(n):
            recording, variant = divmod(row, per_recording)
            root, kind = divmod(int(keys[recording % 48]), 4)
            name = ClipName(root, kind, 5, "m", variant + per_recording * (recording // 48))
            sound = chord(root, kind) * rng.uniform(0.3, 1) + rng.standard_normal(64_000) * 0.003
            writer.write(row, to_int16(sound))
            index.append({"file": f"{name.format()}.wav", "recording": f"r{recording}"})
        writer.finish(index)
    return out


def write_excerpts(folder: Path, n_clips: int = 20, n_songs: int = 8) -> Path:
    """A set to train on: chords of sines that sound from 0.5 to 3.5 s, and rows of songs in which two follow."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows, lines = [], []
    for row in range(n_clips + n_songs):
        (root, kind), (other, _) = (divmod(int(key), 4) for key in rng.choice(48, 2, replace=False))
        first, second = (f"{ROOTS[r]}:{('maj', 'min', 'dim', 'aug')[kind]}" for r in (root, other))
        sound = np.zeros(64_000, np.float32)
        if row < n_clips:
            sound[8000:56_000] = chord(root, kind, seconds=3.0)
            entry = {"kind": "triad", "recording": f"r{row // 2}", "chords": [[0.5, 3.5, first]]}
        else:
            sound[:32_000], sound[32_000:] = chord(root, kind, seconds=2.0), chord(other, kind, seconds=2.0)
            chords = [[0, 2, first], [2, 3.5, second], [3.5, 4, "X"]]
            entry = {"kind": "song-own", "recording": f"s{(row - n_clips) // 2}", "chords": chords}
        rows.append(to_int16(sound + rng.standard_normal(64_000) * 0.003))
        lines.append(json.dumps(entry) + "\n")
    np.save(folder / "000.npy", np.stack(rows))
    (folder / "000.jsonl").write_text("".join(lines))
    (folder / "set.json").write_text(json.dumps({"format": "triadbench-excerpts", "version": 1, "parts": 1}))
    return folder


# --- models ----------------------------------------------------------------------------------------------------------


def small_net(seed: int = 0, width: int = 2, hidden: int = 8) -> ChordNet:
    """A ChordNet with random weights, large enough that its answers differ, in evaluation mode."""
    torch.manual_seed(seed)
    net = ChordNet(width=width, hidden=hidden)
    for module in net.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d)):
            torch.nn.init.kaiming_normal_(module.weight)
    return net.eval()


def template_net() -> ChordNet:
    """A ChordNet that is a chroma template, by weights set by hand: it names clean chords from octave 3 up.

    Every stage passes one channel on: the stem takes the semitone less half of its neighbours (leakage of the log mel),
    `around` adds a channel that is bright only where the octave below is dark, the bass; the circle adds up the notes
    of each triad, less the others, and half of the bass at the root. All other chords are out of reach.
    """
    net = ChordNet(width=1, hidden=4, dropout=0.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for module in net.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.weight.fill_(1)
        net.stem[0].weight[0, 0, 3] = 1 / 5
        net.stem[0].weight[0, 0, [0, 6]] = -0.5 / 5
        net.harmonics[0].weight[0, net.PARTIALS.index(0)] = 1
        net.around[0].weight[0:2, 0, 12] = 1
        net.around[0].weight[1, 0, :12] = -1
        net.around[3].weight[0, 0, 6] = net.around[3].weight[1, 1, 6] = 1
        template = net.circle[0].weight  # (out, 4 maxima and 4 means, 12 steps up)
        for kind, steps in enumerate(TYPE_INTERVALS):
            template[kind, 0] = -1
            template[kind, 0, list(steps)] = 1
            template[kind, 1, 0] = 0.5
            net.at_root.weight[kind, kind, 0] = 10
        net.circle[0].bias.fill_(5)  # above the ReLU
        net.at_root.bias[len(TYPE_INTERVALS) : -2] = net.no_chord.bias[0] = -1000
    return net.eval()


def save_template(path: Path) -> Path:
    save(Checkpoint(template_net(), "chordnet", "both", CHORD, {"note": "by hand"}), path)
    return path


def save_original(path: Path, task: str = "type") -> Path:
    torch.manual_seed(5)
    save(Checkpoint(OriginalNet({"type": 4, "root": 12}[task]), "original", task, ORIGINAL), path)
    return path


def fitted_original(task: str) -> OriginalNet:
    """An original network with random convolutions whose last layer is solved for all 48 chords of `chord`: it names
    the type or the root of each."""
    torch.manual_seed(5)
    net = OriginalNet({"type": 4, "root": 12}[task]).eval()
    clips = torch.from_numpy(np.stack([chord(root, kind) for root in range(12) for kind in range(4)]))
    answers = torch.arange(48) % 4 if task == "type" else torch.arange(48) // 4
    with torch.no_grad():
        mel = MelSpectrogram.from_spec(ORIGINAL)(clips).unsqueeze(1)
        features = net.flatten(net.conv4(net.conv3(net.conv2(net.conv1(mel))))).double()
        wanted = 6 * torch.nn.functional.one_hot(answers, net.linear.out_features).double()
        net.linear.weight.copy_((torch.linalg.pinv(features) @ wanted).T)
        net.linear.bias.zero_()
    return net


def save_pair(folder: Path) -> list[Path]:
    """Networks of `fitted_original` as files of both kinds: a published state dict, and a checkpoint of `train`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(fitted_original("type").state_dict(), folder / "type.pth")
    save(Checkpoint(fitted_original("root"), "original", "root", ORIGINAL), folder / "root.safetensors")
    return [folder / "type.pth", folder / "root.safetensors"]


def in_key(chord: str, key: str | None) -> str:
    """A chord's name, or "N", as it is written in a key: "F#m" for "Gbm" in A major."""
    return describe(read_chord(chord), key)["name"]
