"""rocket-fft in a numba loop over clips: pocketfft compiled into numba code, filters walked sparsely."""

import functools

from triadbench.bench.mel.rivals import Rival


@functools.cache
def _compiled():  # pragma: no cover (numba compiles the body)
    import numba
    import numpy as np

    @numba.njit(parallel=True, fastmath=True)
    def mel_of(clips, window, weights, first, last, hop, mel):
        n, n_frames = len(window), mel.shape[2]
        edge, samples = n // 2, clips.shape[1]
        for clip in numba.prange(len(clips)):
            padded = np.empty(samples + 2 * edge, np.float32)
            padded[edge : edge + samples] = clips[clip]
            for i in range(edge):
                padded[i] = clips[clip, edge - i]
                padded[edge + samples + i] = clips[clip, samples - 2 - i]
            windowed = np.empty((n_frames, n), np.float32)
            for t in range(n_frames):
                for i in range(n):
                    windowed[t, i] = padded[t * hop + i] * window[i]
            spectrum = np.fft.rfft(windowed, axis=1)
            power = np.empty(spectrum.shape[1], np.float32)
            for t in range(n_frames):
                for k in range(len(power)):
                    power[k] = spectrum[t, k].real ** 2 + spectrum[t, k].imag ** 2
                for m in range(len(first)):
                    total = np.float32(0.0)
                    for k in range(first[m], last[m]):
                        total += weights[m, k] * power[k]
                    mel[clip, m, t] = total

    return mel_of


def _prepare(spec, waveform, threads):
    import numba
    import numpy as np
    import rocket_fft  # noqa: F401  (teaches numba np.fft)

    clips = waveform.numpy()
    weights = spec.filterbank().astype(np.float32)
    first = np.array([np.flatnonzero(row)[0] if row.any() else 0 for row in weights])
    last = np.array([np.flatnonzero(row)[-1] + 1 if row.any() else 0 for row in weights])
    window = spec.window_array().astype(np.float32)
    mel = np.empty((len(clips), spec.n_mels, spec.n_frames(clips.shape[1])), np.float32)
    compute = _compiled()

    def run():
        numba.set_num_threads(threads)
        compute(clips, window, weights, first, last, spec.hop_length, mel)
        return mel

    return run


RIVALS = [
    Rival(
        "rocket-fft",
        "numba over clips: frames x window, rfft of one clip, each filter over its own bins",
        _prepare,
        modules=("rocket_fft", "numba"),
        packages=("rocket-fft", "numba"),
        devices=("cpu",),
        threads="numba.set_num_threads; one clip is one thread's",
        slow_start=True,
    )
]
