"""Every kind of file that people have is heard as long as FFmpeg hears it, or refused with the reason and a way out."""

import shutil
import subprocess

import numpy as np
import pytest

from tests.core.audio.real_files import KINDS, PITCH
from triadbench.core.audio.io import AudioError, iter_blocks, read_audio, read_clip, read_header

HEARD = [name for name, kind in KINDS.items() if kind.seconds is not None]
REFUSED = [name for name, kind in KINDS.items() if kind.seconds is None]
WITHIN_S = 0.05


def test_there_are_at_least_eighty_kinds():
    assert len(KINDS) >= 80 and len(HEARD) >= 60


@pytest.mark.parametrize("name", HEARD)
def test_it_is_heard_whole(name, capfd):
    data, seconds = KINDS[name].make(), KINDS[name].seconds
    waveform = np.concatenate(list(iter_blocks(data, note=[].append)))
    assert len(waveform) / 16_000 == pytest.approx(seconds, abs=WITHIN_S)
    header = read_header(data)
    if header.frames is not None:
        assert header.frames / header.sample_rate == pytest.approx(seconds, abs=WITHIN_S)
    middle = waveform[len(waveform) // 4 :][: 16_000 // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert 2 * np.argmax(spectrum) == pytest.approx(PITCH, abs=2) and 0.1 < np.abs(middle).max() < 1
    whole, rate = read_audio(data)
    assert len(whole) / rate == pytest.approx(seconds, abs=WITHIN_S)
    np.testing.assert_allclose(read_clip(data, None), waveform, atol=1e-5)
    np.testing.assert_allclose(read_clip(data, 1.0), waveform[:16_000], atol=1e-4)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_reason(name, capfd):
    data, reason = KINDS[name].make(), KINDS[name].reason
    for read in (lambda source: list(iter_blocks(source, note=[].append)), read_audio, lambda x: read_clip(x, None)):
        with pytest.raises(AudioError, match=f"^these bytes: .*({reason})") as caught:
            read(data)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg, the judge")
@pytest.mark.parametrize("name", HEARD)
def test_the_table_says_what_ffmpeg_hears(name, tmp_path):
    (tmp_path / "x").write_bytes(KINDS[name].make())
    command = ["ffmpeg", "-v", "quiet", "-i", tmp_path / "x", "-vn", "-ar", "16000", "-ac", "1", "-f", "s16le", "-"]
    sound = subprocess.run(command, capture_output=True).stdout
    if "joined" in name and not name.startswith("two mp3s"):
        assert len(sound) / 32_000 <= KINDS[name].seconds + 0.5  # it stops there, or takes a header for sound
    else:
        assert len(sound) / 32_000 == pytest.approx(KINDS[name].seconds, abs=WITHIN_S)
