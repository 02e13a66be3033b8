"""Rooms decay as fast as asked, noise has the colour asked for, and filters neither wrap around nor shift."""

import numpy as np
import pytest
import scipy.signal

from triadbench.core.render.rooms import NOISE_COLOURS, Filter, degrade_song, noise, room_response, tone_curve

RATE = 16_000


def decay_time(response, rate=RATE, low_db=-5, high_db=-25):
    """RT60 in seconds by Schroeder's backward integration, from the fall between two levels."""
    energy = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0] + 1e-30)
    inside = np.flatnonzero((level <= low_db) & (level >= high_db))
    return -60 / np.polyfit(inside / rate, level[inside], 1)[0]


def test_the_measure_itself():
    t = np.arange(RATE) / RATE
    assert decay_time(np.random.default_rng(0).standard_normal(RATE) * 10 ** (-3 * t / 0.4)) == pytest.approx(
        0.4, rel=0.03
    )


# 10 %: over 20 rooms each, the treble's faster decay and the early reflections move the measure by up to 9 %.
@pytest.mark.parametrize("rt60_s", [0.15, 0.3, 0.6, 1.1])
def test_rt60(rt60_s):
    for seed in range(8):
        tail = room_response(np.random.default_rng(seed), RATE, rt60_s)
        tail[0] = 0
        assert decay_time(tail) == pytest.approx(rt60_s, rel=0.1)


@pytest.mark.parametrize("direct_db", [-6.0, 0.0, 10.0])
def test_direct_sound_comes_first_and_stands_as_asked_over_the_tail(direct_db):
    response = room_response(np.random.default_rng(3), RATE, 0.4, direct_db)
    assert response.dtype == np.float32 and response[0] == 1
    assert -10 * np.log10(np.sum(response[1:].astype(float) ** 2)) == pytest.approx(direct_db, abs=1e-3)


def test_no_reflection_before_sound_could_have_reached_a_wall():
    for seed in range(20):
        assert not room_response(np.random.default_rng(seed), RATE, 0.4)[1 : int(0.002 * RATE)].any()


def test_same_generator_same_room():
    first, again, other = (room_response(np.random.default_rng(seed), RATE, 0.4) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(("colour", "slope"), NOISE_COLOURS.items(), ids=NOISE_COLOURS)
def test_noise_colour_and_level(colour, slope):
    sound = noise(np.random.default_rng(0), 64_000, RATE, colour)
    assert sound.dtype == np.float32 and sound.shape == (64_000,)
    # Slow colours swing more within 4 s of their 12 s loop.
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(1, rel=0.1)
    frequencies, power = scipy.signal.welch(sound, RATE, nperseg=2048)
    inside = (frequencies > 100) & (frequencies < 7000)
    measured = np.polyfit(np.log(frequencies[inside]), np.log(power[inside]), 1)[0]
    assert measured == pytest.approx(slope, abs=0.1)


def test_noise_draws_all_colours_and_places():
    slopes = set()
    for seed in range(40):
        sound = noise(np.random.default_rng(seed), 8_000, RATE)
        frequencies, power = scipy.signal.welch(sound, RATE, nperseg=512)
        slopes.add(round(np.polyfit(np.log(frequencies[4:-4]), np.log(power[4:-4]), 1)[0]))
    assert slopes == {-2, -1, 0, 1}
    one, other = (noise(np.random.default_rng(seed), 1000, RATE, "white") for seed in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.2


def test_noise_errors():
    with pytest.raises(ValueError, match="colour='red': expected one of white, pink, brown, blue"):
        noise(np.random.default_rng(0), 100, RATE, "red")
    with pytest.raises(ValueError, match="samples=1000000: at most"):
        noise(np.random.default_rng(0), 1_000_000, RATE)


def test_tone_curve_without_depth_leaves_the_middle_alone():
    frequencies = np.array([300.0, 640.0, 1000.0])
    for seed in range(20):
        assert np.allclose(tone_curve(np.random.default_rng(seed), frequencies, 0.0), 1, atol=0.03)


def test_tone_curve_is_smooth_and_within_its_depth():
    frequencies = np.linspace(200, 3000, 400)
    spread = []
    for seed in range(30):
        level = 20 * np.log10(tone_curve(np.random.default_rng(seed), frequencies, 9.0))
        assert np.abs(np.diff(level)).max() < 1.0
        assert np.abs(level).max() < 3 * 9 + 0.25 * 9 * 2.3 + 3  # three bells, the tilt, the cut-offs
        spread.append(np.ptp(level))
    assert np.median(spread) > 3


def test_filter_is_a_convolution():
    rng = np.random.default_rng(0)
    response, sound = rng.standard_normal(500).astype(np.float32), rng.standard_normal(4000).astype(np.float32)
    out = Filter(response, 4000, RATE)(sound)
    assert out.dtype == np.float32 and out.shape == (4000,)
    assert np.allclose(out, np.convolve(sound, response)[:4000], atol=1e-3)


def test_filter_does_not_wrap_around():
    response = np.zeros(3000, dtype=np.float32)
    response[-1] = 1
    sound = np.zeros(4000, dtype=np.float32)
    sound[2000] = 1
    assert np.abs(Filter(response, 4000, RATE)(sound)).max() < 1e-6
    # 4095 samples and one tap are 4096, a length that transforms well: nothing is left over by chance.
    lifted = Filter(np.ones(1, dtype=np.float32), 4095, RATE, lambda f: tone_curve(np.random.default_rng(1), f, 9.0))
    sound = np.zeros(4095, dtype=np.float32)
    sound[0] = 1
    assert np.abs(lifted(sound)[-1000:]).max() < 0.01 * np.abs(lifted(sound)).max()


def test_filter_gains():
    t = np.arange(16_000) / RATE
    low, high = np.sin(2 * np.pi * 500 * t).astype(np.float32), np.sin(2 * np.pi * 3000 * t).astype(np.float32)
    halve = Filter(np.ones(1, dtype=np.float32), 16_000, RATE, lambda f: np.where(f > 1000, 0.5, 1.0))
    middle = slice(4000, 12_000)
    assert np.allclose(halve(low + high)[middle], (low + 0.5 * high)[middle], atol=0.01)


def test_degraded_songs_are_noisy_and_as_long():
    song = np.concatenate([np.zeros(RATE), np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)]).astype(np.float32)
    worse = degrade_song(song, 1)
    assert worse.shape == song.shape and worse.dtype == np.float32 and np.abs(worse).max() <= 1
    assert np.array_equal(worse, degrade_song(song, 1)) and not np.array_equal(worse, degrade_song(song, 2))
    assert 1e-4 < np.sqrt(np.mean(np.square(worse[: RATE - 100]))) < 0.2
