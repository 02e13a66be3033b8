"""Any sound comes out as 16 kHz mono float32, whole; what is damaged is one clear line, never half a clip."""

import errno
import io
import os
import re
import struct
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.audio.real_files import encoded, sine
from tests.core.sounds import encode, tone
from triadbench.core.audio import decoder
from triadbench.core.audio import io as audio
from triadbench.core.audio.header import FilePart, parse_header
from triadbench.core.audio.io import (
    AudioError,
    check_header,
    find_files,
    iter_blocks,
    read_audio,
    read_clip,
    read_header,
    to_int16,
    write_wav,
)
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.errors import UserError

FORMATS = {
    # name: (container, coding, worst error against the original on a tone at half scale)
    "8-bit": ("WAV", "PCM_U8", 1 / 128),
    "16-bit": ("WAV", "PCM_16", 1 / 32768),
    "24-bit": ("WAV", "PCM_24", 2**-22),
    "32-bit": ("WAV", "PCM_32", 2**-22),
    "float": ("WAV", "FLOAT", 1e-7),
    "double": ("WAV", "DOUBLE", 1e-7),
    "extensible": ("WAVEX", "PCM_24", 2**-22),
    "rf64": ("RF64", "PCM_16", 1 / 32768),
    "mu-law": ("WAV", "ULAW", 0.02),
    "flac": ("FLAC", "PCM_16", 1 / 32768),
    "flac-24": ("FLAC", "PCM_24", 2**-22),
    "aiff": ("AIFF", "PCM_16", 1 / 32768),
}
LOSSY = {"ogg": ("OGG", "VORBIS"), "mp3": ("MP3", "MPEG_LAYER_III")}


@pytest.mark.parametrize("case", FORMATS)
def test_every_depth_gives_the_same_sound(case):
    container, coding, tolerance = FORMATS[case]
    waveform = tone(3000)
    read, rate = read_audio(encode(waveform, 16_000, container, coding))
    assert rate == 16_000 and read.dtype == np.float32 and read.shape == (3000,)
    np.testing.assert_allclose(read, waveform[:, 0], atol=tolerance, rtol=0)


@pytest.mark.parametrize("case", LOSSY)
def test_lossy_formats_give_nearly_the_same_sound(case):
    waveform = tone(32_000)
    read, _ = read_audio(encode(waveform, 16_000, *LOSSY[case]))
    assert abs(len(read) - 32_000) <= 1152
    assert np.corrcoef(read[2000:30_000], waveform[2000:30_000, 0])[0, 1] > 0.99


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("rate", [1000, 8000, 22_050, 44_100, 192_000])
def test_every_rate_and_channel_count_gives_the_tone_at_16_khz(rate, channels):
    clip = read_clip(encode(tone(5 * rate, rate, 110.0, channels=channels), rate))
    assert clip.dtype == np.float32 and clip.shape == (CLIP_SAMPLES,)
    expected = tone(CLIP_SAMPLES, 16_000, 110.0)[:, 0]
    inner = slice(2000, -2000)
    assert np.sqrt(np.mean((clip[inner] - expected[inner]) ** 2)) < 0.02
    assert np.argmax(np.abs(np.fft.rfft(clip))) == 110 * 4


def test_channels_are_averaged():
    frames = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    np.testing.assert_allclose(read_audio(encode(frames))[0], 0.125, atol=1e-4)


def test_a_short_clip_is_padded_on_the_right_and_a_long_one_cut():
    short = read_clip(encode(tone(1000)))
    assert short.shape == (CLIP_SAMPLES,) and np.abs(short[:1000]).max() > 0.3 and not short[1000:].any()
    waveform = tone(100_000)
    np.testing.assert_allclose(read_clip(encode(waveform)), waveform[:CLIP_SAMPLES, 0], atol=1e-4)
    assert read_clip(encode(waveform), None).shape == (100_000,)
    assert read_clip(encode(waveform), 1.5).shape == (24_000,)


def test_the_cut_of_a_long_file_is_the_start_of_the_whole():
    data = encode(tone(44_100 * 9, 44_100), 44_100)
    np.testing.assert_allclose(read_clip(data), read_clip(data, None)[:CLIP_SAMPLES], atol=1e-6)


@pytest.mark.parametrize("rate", [16_000, 44_100, 11_025])
def test_blocks_join_to_the_whole(rate):
    data = encode(tone(int(rate * 5.3), rate, channels=2), rate)
    blocks = list(iter_blocks(data, 0.7))
    assert {len(block) for block in blocks[:-1]} == {11_200} and 0 < len(blocks[-1]) <= 11_200
    np.testing.assert_allclose(np.concatenate(blocks), read_clip(data, None), atol=1e-6)


def test_blocks_of_a_long_file_need_little_memory(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8000 * 1200, dtype=np.int16), 8000)
    tracemalloc.start()
    assert sum(len(block) for block in iter_blocks(path, 10.0)) == 16_000 * 1200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6 < 16_000 * 1200 * 4


def test_sources_a_path_bytes_a_file_and_a_pipe_give_the_same(tmp_path):
    data = encode(tone(2000))
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    expected, _ = read_audio(path)
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    with open(path, "rb") as file, open(read_end, "rb") as pipe:
        for source in (str(path), data, memoryview(data), io.BytesIO(data), file, pipe):
            np.testing.assert_array_equal(read_audio(source)[0], expected)


def bad_sources():
    wav, flac = encode(tone(5000)), encode(tone(5000), format="FLAC")
    more = bytearray(flac)
    struct.pack_into(">I", more, 22, 6000)
    nan = tone(500)
    nan[123] = np.nan
    return {
        "empty": (b"", "empty"),
        "text": (b"this is text, not sound\n" * 50, "not a sound file"),
        "header only": (wav[:44], "truncated: its header promises 10000 bytes and 0 are there"),
        "half a header": (wav[:30], "not a sound file"),
        "half a wav": (wav[:5000], "truncated: its header promises 10000 bytes and 4956 are there"),
        "a wav without its last byte": (wav[:-1], "truncated"),
        "half a mu-law wav": (encode(tone(5000), subtype="ULAW")[:3000], "truncated"),
        "half an aiff": (encode(tone(5000), format="AIFF")[:3000], "truncated"),
        "half a flac": (flac[: len(flac) // 2], "truncated"),
        "a flac that promises more": (bytes(more), "truncated or damaged: 5000 of 6000 frames"),
        "a flac header": (flac[:50], "truncated|not a sound file|zero length"),
        "half an ogg": (encode(tone(50_000), 16_000, *LOSSY["ogg"])[:9000], "truncated: its last Ogg page lacks"),
        "half an mp3": (encode(tone(50_000), 16_000, *LOSSY["mp3"])[:2500], "truncated: its header promises"),
        "zero length": (encode(np.zeros((0, 1))), "zero length"),
        "NaN": (encode(nan, subtype="FLOAT"), "sample 123 is nan"),
        "infinite": (encode(np.where(np.isnan(nan), np.inf, nan), subtype="DOUBLE"), "sample 123 is inf"),
        "no rate": (wav[:24] + struct.pack("<I", 0) + wav[28:], "sample rate|not a sound file"),
        "one hertz": (wav[:24] + struct.pack("<I", 1) + wav[28:], "sample rate, 1 Hz"),
        "absurd rate": (wav[:24] + struct.pack("<I", 2**31 - 1) + wav[28:], "sample rate"),
    }


@pytest.mark.parametrize("case", bad_sources())
def test_damage_is_one_clear_line(case, tmp_path):
    data, message = bad_sources()[case]
    path = tmp_path / "bad.wav"
    path.write_bytes(data)
    for source in (path, data):
        for read in (read_audio, read_clip, lambda source: list(iter_blocks(source))):
            with pytest.raises(AudioError, match=message) as caught:
                read(source)
            assert "\n" not in str(caught.value)
    with pytest.raises(AudioError, match="^clip 7: "):
        read_clip(data, name="clip 7")


def test_missing_paths_and_folders_are_named(tmp_path):
    with pytest.raises(AudioError, match="missing.wav does not exist"):
        read_clip(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="is a folder"):
        read_clip(tmp_path)
    with pytest.raises(AudioError, match="cannot be opened"):
        read_clip("a\0b.wav")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000])
def test_a_wav_from_a_pipe_that_states_no_length_is_read_to_its_end(size):
    wav = bytearray(encode(tone(5000)))
    struct.pack_into("<I", wav, 4, size)
    struct.pack_into("<I", wav, 40, size)
    assert len(read_audio(bytes(wav))[0]) == 5000
    assert parse_header(bytes(wav), len(wav)).frames == 5000


def test_a_flac_that_states_no_length_is_read_to_its_end():
    flac = bytearray(encode(tone(5000), format="FLAC"))
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    assert parse_header(bytes(flac), len(flac)).frames is None
    assert len(read_audio(bytes(flac))[0]) == 5000


@pytest.mark.parametrize("case", [*FORMATS, *LOSSY])
def test_the_header_tells_what_decoding_finds(case):
    container, coding = (FORMATS.get(case) or LOSSY[case])[:2]
    data = encode(tone(3000, 44_100, channels=2), 44_100, container, coding)
    header = read_header(data)
    assert (header.sample_rate, header.channels) == (44_100, 2)
    assert header.frames == pytest.approx(len(read_audio(data)[0]), abs=0 if case in FORMATS else 0.05 * 44_100)
    cheap = check_header(data[:4096], len(data), "x")
    if cheap is not None:
        assert (cheap.sample_rate, cheap.channels, cheap.frames) == (44_100, 2, header.frames)
        assert cheap.subtype == header.subtype
    assert (cheap is not None) == (container in ("WAV", "WAVEX", "FLAC") and coding != "ULAW")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["WAV", "FLAC", "OGG", "AIFF"]), st.integers(0, 3000), st.data())
def test_any_damage_is_sound_or_an_audio_error(junk, container, at, data):
    coding = "VORBIS" if container == "OGG" else "PCM_16"
    content = bytearray(encode(tone(1000), 16_000, container, coding))
    at = data.draw(st.integers(0, len(content)))
    content[at : at + len(junk)] = junk
    try:
        waveform = read_clip(bytes(content))
    except AudioError:
        return
    assert waveform.shape == (CLIP_SAMPLES,) and np.isfinite(waveform).all()


def test_written_sound_reads_back_to_the_bit(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    write_wav(tmp_path / "x.wav", (samples / 32768).astype(np.float32))
    info = soundfile.info(tmp_path / "x.wav")
    assert (info.subtype, info.samplerate, info.channels) == ("PCM_16", 16_000, 1)
    np.testing.assert_array_equal(to_int16(read_audio(tmp_path / "x.wav")[0]), samples)
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]


def odd_chunks(wav):
    """Notes before the sound, of an odd length, and after it."""
    note = b"note" + struct.pack("<I", 3) + b"abc\0"
    return wav[:36] + note + wav[36:] + note


@pytest.mark.parametrize(
    "data",
    [
        encode(tone(3001)),
        encode(tone(3001, channels=2)),
        encode(tone(300_001, 8000, channels=5), 8000),
        encode(tone(3001, channels=2), format="WAVEX"),
        odd_chunks(encode(tone(3001, channels=2))),
    ],
    ids=["mono", "stereo", "several blocks", "extensible", "other chunks"],
)
def test_16_bits_are_what_libsndfile_reads(data, monkeypatch):
    expected, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    monkeypatch.setattr(decoder, "Decoder", lambda *_: pytest.fail("not read here"))
    read, read_rate = read_audio(data)
    mono = expected[:, 0] if expected.shape[1] == 1 else expected.mean(axis=1, dtype=np.float64).astype(np.float32)
    assert rate == read_rate and np.array_equal(read, mono)


@pytest.mark.parametrize(("channels", "rate"), [(1, 16_000), (2, 44_100)])
def test_a_written_wav_is_libsndfiles_to_the_byte(channels, rate, tmp_path):
    waveform = to_int16(tone(1001, channels=channels))
    write_wav(tmp_path / "x.wav", waveform, rate)
    assert (tmp_path / "x.wav").read_bytes() == encode(waveform, rate)


@pytest.mark.parametrize(("shape", "rate"), [((10,), 0), ((10, 0), 16_000), ((10, 70_000), 16_000)])
def test_a_sound_that_no_wav_holds(shape, rate, tmp_path):
    with pytest.raises(UserError, match="x.wav: cannot write this sound"):
        write_wav(tmp_path / "x.wav", np.zeros(shape), rate)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_sample_is_counted_from_the_start_of_the_file(tmp_path):
    late = np.zeros(1_200_000)
    late[1_100_000] = np.nan  # beyond the first million, which are read at once
    soundfile.write(tmp_path / "x.wav", late, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="sample 1100000 is nan"):
        list(iter_blocks(tmp_path / "x.wav"))


def test_writing_clips_and_refuses_what_is_no_number(tmp_path):
    assert to_int16(np.array([2.0, -2.0, 1.0, -1.0, 0.0])).tolist() == [32767, -32768, 32767, -32768, 0]
    with pytest.raises(AudioError, match="NaN"):
        write_wav(tmp_path / "x.wav", np.array([0.0, np.nan]))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make this folder"):
        write_wav(tmp_path / "file" / "x.wav", np.zeros(10))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_absurd_levels_are_damage():
    with pytest.raises(AudioError, match="far beyond full scale"):
        read_clip(encode(tone(1000) * 1e30, 16_000, "WAV", "FLOAT"))


def test_a_name_that_is_no_text(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system has no such names")
    write_wav(path, np.full((800, 2), 0.25))  # two channels: not what `read_plain` reads
    assert read_clip(path, None).tolist() == [0.25] * 800
    assert [len(block) for block in iter_blocks(path)] == [800] and read_header(path).channels == 2


# --- the files that paths name: sorted, none hidden, none twice, and what cannot be used stays in the list ---------------


@pytest.fixture
def folder(tmp_path):
    for name in ("b.wav", "a.FLAC", "deep/er/c.ogg", "deep/d.mp3", "notes.txt", ".hidden.wav", "._b.wav", ".git/x.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "bundle.wav").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_find_files(folder):
    found = find_files([folder / "missing.wav", folder, folder / "notes.txt", folder / "empty", "-"])
    wanted = ["missing.wav", "a.FLAC", "b.wav", "deep/d.mp3", "deep/er/c.ogg", "notes.txt", "empty"]
    assert found == [*(str(folder / name) for name in wanted), "-"]


def test_the_folder_at_hand(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_files(["."]) == ["a.FLAC", "b.wav", "deep/d.mp3", "deep/er/c.ogg"]
    assert find_files(["deep/", "./-"]) == ["deep/d.mp3", "deep/er/c.ogg", "./-"]
    assert find_files([".git"]) == [".git/x.wav"]  # asked for by name


def test_links_are_followed_and_loops_are_not(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "z.wav").write_bytes(b"")
    try:
        (folder / "deep" / "back").symlink_to(folder, target_is_directory=True)
        (folder / "empty" / "other").symlink_to(elsewhere, target_is_directory=True)
        (folder / "empty" / "same").symlink_to(elsewhere, target_is_directory=True)
        (folder / "self.wav").symlink_to(folder / "self.wav")
    except OSError:
        pytest.skip("this file system has no links")
    found = [os.path.relpath(file, folder) for file in find_files([folder])]
    assert found == ["a.FLAC", "b.wav", "deep/d.mp3", "deep/er/c.ogg", "empty/other/z.wav"]


def test_very_deep_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(400):
        os.mkdir("d")
        os.chdir("d")
    open("x.wav", "wb").close()
    os.chdir(tmp_path)
    assert find_files(["d"]) == ["d/" * 400 + "x.wav"]


def test_a_folder_that_cannot_be_read_is_reported(folder, monkeypatch):
    inner = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return inner(path)

    monkeypatch.setattr(audio.os, "scandir", refuse)
    assert [os.path.relpath(file, folder) for file in find_files([folder])] == ["a.FLAC", "b.wav", "deep"]


def test_folders_hold_what_phones_and_browsers_write(tmp_path):
    names = ["a.opus", "b.aiff", "c.caf", "d.m4a", "e.webm", "f.mp4", "g.wma", "h.aac", "i.AIF"]
    names += [f"j.{suffix}" for suffix in "ac3 dts eac3 flv m4v mp2 ogv spx tta voc w64 weba".split()]
    for name in [*names, "x.txt", "x.ts", "y.pdf", "z.mid"]:
        (tmp_path / name).write_bytes(b"")
    assert [os.path.basename(file) for file in find_files([tmp_path])] == names


def test_a_place_outside_of_a_part_is_its_nearest_end(tmp_path):
    (tmp_path / "x").write_bytes(b"abcdefgh")
    with open(tmp_path / "x", "rb") as file:
        part = FilePart(file, 2, 6)
        assert (part.read(3), part.tell(), part.read(9), part.read(1)) == (b"cde", 3, b"f", b"")
        assert [part.seek(*to) for to in ((-5,), (1,), (1, 1), (-1, 2), (1 << 62,), (3, 2))] == [0, 1, 2, 3, 4, 4]


def test_a_clip_goes_on_where_another_file_was_joined():
    first, second = encode(tone(16_000)), encode(tone(44_100, 44_100, channels=2), 44_100)
    joined = np.concatenate([read_clip(first, None), read_clip(second, None)])
    np.testing.assert_allclose(read_clip(first + second, None), joined, atol=1e-4)
    for seconds in (0.5, 1.5, 3.0):
        clip = read_clip(first + second, seconds)
        np.testing.assert_allclose(clip, np.pad(joined, (0, 16_000))[: len(clip)], atol=1e-4)


# --- files that cannot be read to their end ---------------------------------------------------------------------------


class Failing(io.BytesIO):
    """A file on a disk that fails, or that is cut short by someone, in its midst."""

    def __init__(self, data, is_cut):
        super().__init__(data)
        self.end, self.is_cut = len(data) // 2, is_cut

    def read(self, size=-1):
        left = self.end - self.tell()
        if not self.is_cut and not 0 <= size <= left:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(max(0, min(size, left)))


LONG = {
    name: (lambda kind=kind: encode(tone(480_000, 48_000, 2), 48_000, *kind))
    for name, kind in {
        "16-bit wav": ("WAV", "PCM_16"),
        "24-bit wav": ("WAV", "PCM_24"),
        "flac": ("FLAC", "PCM_16"),
        "ogg": ("OGG", "VORBIS"),
        "mp3": ("MP3", "MPEG_LAYER_III"),
    }.items()
} | {
    "m4a": lambda: encoded("ipod", "aac", sound=sine(seconds=10)),
    "webm": lambda: encoded("webm", "libopus", sound=sine(seconds=10)),
}


@pytest.mark.parametrize("is_cut", [False, True], ids=["EIO", "shrinks"])
@pytest.mark.parametrize("kind", LONG)
def test_a_failing_disk_and_a_shrinking_file_are_one_line(kind, is_cut, tmp_path, monkeypatch, capfd):
    data = LONG[kind]()
    reason = "became shorter|truncated" if is_cut else "Input/output error"
    readers = read_audio, lambda file: read_clip(file, None), lambda file: list(iter_blocks(file, note=[].append))
    for read in readers:
        with pytest.raises(AudioError, match=f"^this stream: .*({reason})") as caught:
            read(Failing(data, is_cut))
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(audio, "open", lambda *_: Failing(data, is_cut), raising=False)
    (tmp_path / "x.wav").write_bytes(data)
    for read in readers:
        with pytest.raises(AudioError, match=f"^{re.escape(str(tmp_path))}/x.wav: .*({reason})"):
            read(tmp_path / "x.wav")
    assert capfd.readouterr() == ("", "")


# --- named pipes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path):
    if os.name == "nt":
        pytest.skip("needs named pipes")
    os.mkfifo(tmp_path / "x.wav")
    return tmp_path / "x.wav"


def test_a_pipe_without_a_writer_is_not_waited_for(fifo, monkeypatch):
    monkeypatch.setattr(audio, "_FIFO_WAIT_S", 0.1)
    for read in (read_audio, read_clip, read_header, lambda path: list(iter_blocks(path))):
        with pytest.raises(AudioError, match="nothing was written into this named pipe for 0.1 s"):
            read(fifo)


def test_a_pipe_whose_writer_comes_late_is_read(fifo):
    data = encode(tone(100_000))  # more than a pipe holds
    writer = threading.Timer(0.3, lambda: fifo.write_bytes(data))
    writer.start()
    read, _ = read_audio(fifo)
    writer.join()
    np.testing.assert_array_equal(read, read_audio(data)[0])


# --- channels that cancel each other out -----------------------------------------------------------------------------


def test_channels_at_both_ends_of_infinity_are_an_error_without_a_warning():
    with pytest.raises(AudioError, match="sample 7 is nan"):
        read_audio(encode(np.where(np.arange(100)[:, None] == 7, [[np.inf, -np.inf]], 0), subtype="FLOAT"))


def noted(data):
    notes = []
    return np.concatenate(list(iter_blocks(data, note=notes.append))), notes


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.04])
@pytest.mark.parametrize("seconds", [1, 40])
def test_an_inverted_channel_is_left_out(noise, seconds):
    left = tone(16_000 * seconds)
    right = -0.9 * left + noise * np.random.default_rng(1).standard_normal(left.shape)
    found, notes = noted(encode(np.hstack([left, right])))
    np.testing.assert_allclose(found, left[:, 0], atol=1e-4)
    assert notes == ["these bytes: its channels cancel each other out (one is inverted); the loudest is heard alone"]
    np.testing.assert_array_equal(read_clip(encode(np.hstack([right, left])), None), found)  # nobody asks: no note


@pytest.mark.parametrize("noises", [(0.09, 0), (0.18, 0), (0.06, 0.06), (0.16, 0.16)], ids=str)
def test_noise_does_not_hide_that_a_channel_is_inverted(noises):
    noise = np.random.default_rng(2).standard_normal((64_000, 2)) * noises
    sound = (
        tone(64_000) * [1, -1] + noise
    )  # the tone's power is 0.08: noise at -10 and -4 dB in one, at -13 and -5 in both
    found, notes = noted(encode(sound / 2))
    assert any(np.abs(found - channel / 2).max() < 1e-4 for channel in sound.T)
    assert len(notes) == 1


def wide_stereo():
    draw, seconds = np.random.default_rng(3), np.arange(64_000) / 16_000
    chord = sum(np.sin(2 * np.pi * 220 * ratio * seconds) for ratio in (1, 5 / 4, 3 / 2, 2, 5 / 2, 3)) / 12
    rooms = draw.standard_normal((2, 12_000)) * np.exp(-9 * seconds[:12_000])
    wet = np.fft.irfft(np.fft.rfft(chord, 80_000) * np.fft.rfft(rooms, 80_000))[:, :64_000]
    return {
        "unrelated noise": 0.1 * draw.standard_normal((64_000, 2)),
        "six unrelated channels": 0.1 * draw.standard_normal((64_000, 6)),
        "two players": np.stack([np.sin(2 * np.pi * pitch * seconds) / 3 for pitch in (220, 277)], axis=1),
        "a quarter of a wave apart": np.stack([np.sin(1400 * seconds), np.cos(1400 * seconds)], axis=1) / 3,
        "a third of a wave apart": np.stack([np.sin(1400 * seconds), np.sin(1400 * seconds + 2.09)], axis=1) / 3,
        "reverb of two rooms": wet.T / 30,
        "the right one 10 ms later": np.stack([chord, np.roll(chord, 160)], axis=1),
    }


@pytest.mark.parametrize("kind", wide_stereo())
def test_wide_stereo_is_averaged(kind):
    sound = wide_stereo()[kind]
    found, notes = noted(encode(sound))
    np.testing.assert_allclose(found, sound.mean(axis=1), atol=1e-4)
    assert notes == []


def test_the_last_samples_of_a_file_are_too_few_to_tell_by():
    sound = np.vstack([tone(524_288, channels=2), tone(100) * [1, -1]])  # the first are a block of their own
    found, notes = noted(encode(sound))
    np.testing.assert_allclose(found, sound.mean(axis=1), atol=1e-4)
    assert notes == []


@pytest.mark.parametrize("shares", [(1, 1), (1, 0), (1, -0.3), (0, 0), (1, 0, 0, 0, 0, 0, 0, 0)])
def test_other_channels_are_averaged(shares):
    sound = tone(20_000) * shares
    found, notes = noted(encode(sound))
    np.testing.assert_allclose(found, sound.mean(axis=1), atol=1e-4)
    assert notes == []


def test_the_same_offset_in_both_channels_hides_nothing():
    left = tone(16_000) / 2
    found, notes = noted(encode(np.hstack([left, -left]) + 0.3))
    np.testing.assert_allclose(found, left[:, 0] + 0.3, atol=1e-4)
    assert len(notes) == 1


# --- what cannot be decoded ------------------------------------------------------------------------------------------


def test_what_is_left_out_is_told_or_an_error(monkeypatch):
    data = encode(tone(48_000), 16_000, *LOSSY["mp3"])
    whole = read_clip(data, None)

    class Packet:
        def __init__(self, packet):
            self.packet, self.pts = packet, packet.pts
            self.duration, self.time_base = packet.duration, packet.time_base

        def decode(self):
            if 0.9 < float((self.packet.pts or 0) * self.time_base) < 1.9:
                raise decoder.av.error.InvalidDataError(1, "bad packet")
            return self.packet.decode()

    class Container:
        def __init__(self, container):
            self.container, self.close = container, container.close

        def demux(self, stream):
            return map(Packet, self.container.demux(stream))

    frames = decoder.Decoder._frames

    def frames_of_packets(self):
        self._container = Container(self._container)
        return frames(self)

    monkeypatch.setattr(decoder.Decoder, "_frames", frames_of_packets)
    monkeypatch.setattr(decoder, "mp3_promise", lambda _: (False, None))
    found, notes = noted(data)
    assert len(whole) - len(found) == pytest.approx(16_000, abs=1200)
    [line] = notes
    assert re.fullmatch(r"these bytes: damaged: [01]\.\d\d s of it could not be decoded and were left out", line)
    with pytest.raises(AudioError, match=r"damaged: [01]\.\d\d s of it could not be decoded; .*ffmpeg -i"):
        read_audio(data)


def test_a_hole_in_a_television_stream_is_passed_over():
    stream = encoded("mpegts", "mp2", sound=sine(seconds=20), b="192k")
    hole = slice(len(stream) // 4, len(stream) // 2)
    found, notes = noted(stream[: hole.start] + bytes(hole.stop - hole.start) + stream[hole.stop :])
    [line] = notes
    lost = float(re.fullmatch(r"these bytes: damaged: (.*) s of it could not be decoded and were left out", line)[1])
    assert 14 < len(found) / 16_000 < 16 and len(found) / 16_000 + lost == pytest.approx(20, abs=0.2)


def test_a_device_has_no_end():
    for path in ("/dev/zero", "/dev/null"):
        if os.path.exists(path):
            with pytest.raises(AudioError, match=f"^{path} is a device, not a plain file"):
                read_audio(path)


def test_files_that_a_sound_names_are_not_opened(tmp_path, monkeypatch):
    """FFmpeg knows playlists, and formats that name other files: none is opened, whatever the suffix."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.wav").write_bytes(encode(tone(1000)))
    for name, text in {
        "a.mp3": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
        "b.wav": "ffconcat version 1.0\nfile secret.wav\n",
        "c.m4a": f"v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 96\n{tmp_path}",
    }.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(decoder, "_FOREIGN", {})  # FFmpeg itself is asked
        with pytest.raises(AudioError, match="not a sound file"):
            read_audio(tmp_path / name)
