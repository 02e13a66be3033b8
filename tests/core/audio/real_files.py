"""Sound files of the kinds that people have: container, coding, writer, oddity. Made with PyAV, libsndfile, or by hand."""

import io
import struct
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile

PITCH = 440.0
SECONDS = 2.0


def sine(rate=48_000, channels=1, seconds=SECONDS, pitch=PITCH):
    """A sine at half scale, float32 (samples, channels)."""
    wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(
    container, codec, rate=48_000, channels=1, *, picture=None, sound=None, late=0.0, options=None, **codec_options
):
    """The bytes of a file that FFmpeg writes; `picture`: coding of a film's pictures, or None; the sound is `late` seconds."""
    if "faststart" in (options or {}).get("movflags", ""):
        buffer: Any = tempfile.NamedTemporaryFile(suffix=".m4a")  # FFmpeg opens it a second time
        target = buffer.name
    else:
        target = buffer = io.BytesIO()
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    waveform = sine(rate, channels) if sound is None else sound
    with av.open(target, "w", format=container, options=options or {}) as file:
        video = file.add_stream(picture, rate=10, width=64, height=64, pix_fmt="yuv420p") if picture else None
        stream = file.add_stream(codec, rate=rate, layout=layout, options={"strict": "-2", **codec_options})
        convert = av.AudioResampler(stream.codec_context.format, layout, rate, stream.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform.reshape(1, -1)), "flt", layout)
        frame.sample_rate, frame.pts = rate, round(late * rate)
        for number in range(round(10 * SECONDS) if video else 0):
            image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), "rgb24")
            file.mux(video.encode(image))
        if video:
            file.mux(video.encode(None))
        for part in (frame, None):
            for piece in convert.resample(part):
                file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    with buffer:
        buffer.seek(0)
        return buffer.read()


def film_without_sound():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        video = file.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        for part in (av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24"), None):
            file.mux(video.encode(part))
    return buffer.getvalue()


def snd(format, subtype, rate=48_000, channels=1, sound=None, **options):
    """The bytes of a file that libsndfile writes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, sine(rate, channels) if sound is None else sound, rate, subtype, format=format, **options)
    return buffer.getvalue()


def wav(
    riff=None, data=None, before=b"", after=b"", coding=1, bits=16, align=None, rate=48_000, channels=1, sound=None
):
    """A wav by hand; `riff`, `data`: sizes that are stated in place of the true ones."""
    samples = (sine(rate, channels) if sound is None else sound) * 32767
    body = samples.astype("<i2").tobytes()
    align = channels * 2 if align is None else align
    fmt = struct.pack("<HHIIHH", coding, channels, rate, rate * align, align, bits)
    data = len(body) if data is None else data
    chunks = b"fmt " + struct.pack("<I", 16) + fmt + before + b"data" + struct.pack("<I", data) + body + after
    return b"RIFF" + struct.pack("<I", len(chunks) + 4 if riff is None else riff) + b"WAVE" + chunks


def wav24_in_4(is_extensible=False):
    """A wav of 24 bits, each sample in the upper three of four bytes."""
    body = (np.int32(sine() * 2**23) << 8).astype("<i4").tobytes()
    fmt = struct.pack("<HHIIHH", 0xFFFE if is_extensible else 1, 1, 48_000, 4 * 48_000, 4, 24)
    if is_extensible:
        fmt += struct.pack("<HHIH", 22, 24, 0, 1) + bytes.fromhex("000000001000800000aa00389b71")
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def chunk(name, size):
    return name + struct.pack("<I", size) + bytes(size)


def id3(size, picture=b""):
    """A tag that stands before an mp3, as large as one with a picture is."""
    return b"ID3\3\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + picture.ljust(size, b"\0")


def flac_with(kind, content):
    """A FLAC file with a block of metadata (2: of a program, 6: a picture)."""
    data = snd("FLAC", "PCM_16")
    return data[:42] + bytes([kind]) + len(content).to_bytes(3, "big") + content + data[42:]


def mp3(rate=44_100, channels=1, xing=True, **options):
    options = {"b": "128k", **options}
    return encoded("mp3", "libmp3lame", rate, channels, options={"write_xing": "1" if xing else "0"}, **options)


def vbr(**options):
    return mp3(**options, b="0", flags="+qscale", global_quality=str(118 * 5))


def damaged(data, share):
    """Sixteen other bytes, at a share of the file's length."""
    at = int(len(data) * share)
    return data[:at] + bytes(255 - byte for byte in data[at : at + 16]) + data[at + 16 :]


def cut(data, share=0.5):
    return data[: int(len(data) * share)]


def inverted(noise=0.0):
    sound = sine(channels=2) + noise * np.random.default_rng(0).standard_normal((round(48_000 * SECONDS), 2))
    return (sound * [1, -1]).astype(np.float32)


class Kind(NamedTuple):
    """A kind of file: how it is made, and how long it sounds; or, of one that is refused, words of the reason."""

    make: Callable[[], bytes]
    seconds: float | None = SECONDS
    reason: str | None = None


def heard(function, *arguments, seconds=SECONDS, **options):
    return Kind(lambda: function(*arguments, **options), seconds)


def refused(reason, make):
    return Kind(make, None, reason)


KINDS = {
    # --- not compressed ------------------------------------------------------------------------------------------
    "wav, 8 bits": heard(encoded, "wav", "pcm_u8"),
    "wav, 16 bits": heard(encoded, "wav", "pcm_s16le"),
    "wav, 24 bits": heard(encoded, "wav", "pcm_s24le"),
    "wav, 32 bits": heard(encoded, "wav", "pcm_s32le"),
    "wav, 64 bits": heard(encoded, "wav", "pcm_s64le"),
    "wav, float": heard(encoded, "wav", "pcm_f32le", 44_100, 2),
    "wav, double": heard(encoded, "wav", "pcm_f64le"),
    "wav, A-law (telephone)": heard(encoded, "wav", "pcm_alaw", 8_000),
    "wav, mu-law (telephone)": heard(encoded, "wav", "pcm_mulaw", 8_000),
    "wav, ADPCM of Microsoft": heard(snd, "WAV", "MS_ADPCM", 44_100),
    "wav, ADPCM of IMA": heard(snd, "WAV", "IMA_ADPCM", 44_100),
    "wav, GSM": heard(snd, "WAV", "GSM610", 8_000),
    "wav, mp3 within": heard(encoded, "wav", "libmp3lame", 44_100, seconds=2.04),
    "wav, extensible, 8 channels": heard(snd, "WAVEX", "PCM_24", 48_000, 8),
    "wav, 192 kHz": heard(encoded, "wav", "pcm_s24le", 192_000, 2),
    "rf64": heard(snd, "RF64", "PCM_16"),
    "rf64 by FFmpeg": heard(encoded, "wav", "pcm_s24le", options={"rf64": "always"}),
    "w64": heard(encoded, "w64", "pcm_s16le"),
    "aiff": heard(encoded, "aiff", "pcm_s16be", 44_100, 2),
    "aiff, 24 bits": heard(encoded, "aiff", "pcm_s24be"),
    "aifc, little-endian (macOS)": heard(snd, "AIFF", "PCM_16", endian="LITTLE"),
    "aifc, float": heard(snd, "AIFF", "FLOAT"),
    "caf (GarageBand)": heard(encoded, "caf", "pcm_s16be"),
    "caf, float, by libsndfile": heard(snd, "CAF", "FLOAT"),
    "au": heard(encoded, "au", "pcm_s16be"),
    "au, mu-law": heard(encoded, "au", "pcm_mulaw", 8_000),
    "voc": heard(encoded, "voc", "pcm_u8", 8_000),
    "svx (Amiga)": heard(snd, "SVX", "PCM_16", 22_050),
    "ircam": heard(snd, "IRCAM", "PCM_16"),
    "nist sphere (speech corpora)": heard(snd, "NIST", "PCM_16", 16_000),
    # --- compressed without loss ---------------------------------------------------------------------------------
    "flac": heard(snd, "FLAC", "PCM_16", 44_100, 2),
    "flac, 24 bits": heard(snd, "FLAC", "PCM_24", 96_000),
    "flac from a pipe, no length": heard(encoded, "flac", "flac", 48_000),
    "flac that keeps the header of its wav": heard(lambda: flac_with(2, b"riff" + wav()[:44])),
    "flac whose picture looks like sound": heard(lambda: flac_with(6, bytes(32) + id3(9) + snd("FLAC", "PCM_16")[:80])),
    "mp3 whose picture looks like sound": heard(
        lambda: id3(5000, bytes(99) + wav()[:44] + id3(9)) + mp3(), seconds=2.0
    ),
    "flac in ogg": heard(encoded, "ogg", "flac"),
    "flac in mkv": heard(encoded, "matroska", "flac"),
    "flac in mp4": heard(encoded, "mp4", "flac"),
    "alac (Apple Lossless)": heard(encoded, "ipod", "alac", 44_100, 2),
    "alac in caf": heard(encoded, "caf", "alac"),
    "alac in caf, the last packet nearly whole": heard(
        encoded, "caf", "alac", 32_000, sound=sine(32_000, seconds=1.9), seconds=1.9
    ),
    "alac in caf, by libsndfile": heard(snd, "CAF", "ALAC_16", 16_000),
    "wavpack": heard(encoded, "wv", "wavpack"),
    "tta": heard(encoded, "tta", "tta"),
    # --- mp3 and mp2 ---------------------------------------------------------------------------------------------
    "mp3": heard(mp3),
    "mp3 by libsndfile": heard(snd, "MP3", "MPEG_LAYER_III", 44_100, 2),
    "mp3, stereo, variable bitrate": heard(vbr, channels=2),
    "mp3 from a pipe, no Xing frame": heard(mp3, xing=False, seconds=2.038),
    "mp3, variable bitrate, no Xing frame": heard(vbr, xing=False, seconds=2.038),
    "mp3, 22 kHz (MPEG-2)": heard(mp3, 22_050, b="64k"),
    "mp3, 8 kHz (MPEG-2.5)": heard(mp3, 8_000, b="16k"),
    "mp3 with a cover": heard(lambda: id3(100_000) + mp3()),
    "mp3, old tag at its end": heard(lambda: mp3() + b"TAG" + bytes(125)),
    "mp3, two tags before it": heard(lambda: id3(3000) + id3(500) + mp3()),
    "mp3, the start cut off (radio)": heard(lambda: mp3(xing=False)[5000:], seconds=1.725),
    "two mp3s joined": heard(lambda: mp3() + mp3(22_050, b="64k"), seconds=4.06),
    "two mp3s joined, no Xing frames": heard(lambda: vbr(xing=False) + mp3(xing=False), seconds=4.076),
    "mp2 (radio)": heard(encoded, "mp2", "mp2", 48_000, 2, b="192k", seconds=2.016),
    # --- phones, browsers, films ---------------------------------------------------------------------------------
    "m4a (iPhone)": heard(encoded, "ipod", "aac", 44_100),
    "m4a for the web": heard(encoded, "ipod", "aac", 48_000, 2, options={"movflags": "faststart"}),
    "mp4 in fragments (Safari)": heard(
        encoded, "mp4", "aac", options={"movflags": "frag_keyframe+empty_moov"}, seconds=2.02
    ),
    "mov, not compressed (camera)": heard(encoded, "mov", "pcm_s16le"),
    "m4a, 8 channels": heard(encoded, "ipod", "aac", 48_000, 8, b="512k"),
    "aac": heard(encoded, "adts", "aac", 44_100, seconds=2.02),
    "3gp, AMR (old Android)": heard(encoded, "3gp", "libopencore_amrnb", 8_000, b="12200"),
    "amr": heard(encoded, "amr", "libopencore_amrnb", 8_000, b="12200"),
    "mp4, film": heard(encoded, "mp4", "aac", picture="mpeg4"),
    "mkv, film, 5.1": heard(encoded, "matroska", "ac3", 48_000, 6, picture="mpeg4"),
    "avi, film": heard(encoded, "avi", "libmp3lame", 44_100, 2, picture="mpeg4", seconds=2.04),
    "flv": heard(encoded, "flv", "libmp3lame", 44_100, seconds=2.04),
    "mpeg-ts (television)": heard(encoded, "mpegts", "mp2", b="192k", seconds=2.016),
    "opus in webm (Chrome)": heard(encoded, "webm", "libopus"),
    "opus in webm, recorded live": heard(encoded, "webm", "libopus", options={"live": "1"}),
    "webm, film": heard(encoded, "webm", "libopus", picture="libvpx"),
    "mka, mp3": heard(encoded, "matroska", "libmp3lame", 44_100, seconds=2.02),
    "wma": heard(encoded, "asf", "wmav2", 44_100, 2, b="128k", seconds=1.997),
    "webm that begins late (a call)": heard(encoded, "webm", "libopus", late=1.5),
    "mka that begins late": heard(encoded, "matroska", "aac", late=0.6, seconds=2.04),
    "mp4 that begins late": heard(encoded, "mp4", "aac", late=1.9, seconds=2.04),
    "film, its sound begins late": heard(encoded, "matroska", "aac", picture="mpeg4", late=1.0, seconds=2.04),
    "wma that begins late": heard(encoded, "asf", "wmav2", 44_100, 2, b="128k", late=1.0, seconds=1.997),
    "wma 1": heard(encoded, "asf", "wmav1", 44_100, b="64k", seconds=1.997),
    "ac3": heard(encoded, "ac3", "ac3", 48_000, 2, seconds=2.016),
    "eac3": heard(encoded, "eac3", "eac3", 48_000, 2, seconds=2.016),
    # --- ogg -----------------------------------------------------------------------------------------------------
    "ogg vorbis": heard(snd, "OGG", "VORBIS", 44_100, 2),
    "opus (WhatsApp)": heard(encoded, "ogg", "libopus", 48_000),
    "opus, 5.1": heard(encoded, "ogg", "libopus", 48_000, 6),
    "opus by libsndfile": heard(snd, "OGG", "OPUS", 48_000),
    "two oggs joined (internet radio)": heard(
        lambda: snd("OGG", "VORBIS") + snd("OGG", "VORBIS", 22_050, 2), seconds=4.0
    ),
    "vorbis and opus joined": heard(lambda: snd("OGG", "VORBIS") + encoded("ogg", "libopus"), seconds=4.0),
    "three opus files joined": heard(lambda: 3 * encoded("ogg", "libopus"), seconds=6.0),
    "ogg, an mp3 tag at its end": heard(lambda: snd("OGG", "VORBIS") + b"TAG" + bytes(125)),
    # --- odd wavs ------------------------------------------------------------------------------------------------
    "wav of a recorder that crashed": heard(wav, riff=0, data=0),
    "wav of another that crashed": heard(wav, riff=36, data=0),
    "wav of one that wrote the RIFF size alone": heard(wav, data=0),
    "wav, 24 bits in four bytes": heard(wav24_in_4),
    "wav, 24 bits in four bytes, extensible": heard(wav24_in_4, is_extensible=True),
    "wav, 24 bits, of one that crashed": heard(
        lambda: (
            encoded("wav", "pcm_s24le")
            .replace(b"data" + struct.pack("<I", 288_000), b"data" + bytes(4))
            .replace(b"RIFF", b"RIFF\0\0\0\0", 1)
            .replace(b"RIFF\0\0\0\0" + struct.pack("<I", 288_094), b"RIFF\0\0\0\0", 1)
        )
    ),
    "wav from a pipe": heard(wav, riff=0xFFFFFFFF, data=0xFFFFFFFF),
    "wav from another pipe": heard(wav, riff=0x7FFFFFFF, data=0x7FFFFFFF),
    "wav, RIFF size wrong": heard(wav, riff=100),
    "wav, broadcast notes of 9 KB": heard(wav, before=chunk(b"bext", 9000)),
    "wav, notes behind": heard(wav, after=chunk(b"LIST", 500)),
    "wav, a chunk of odd length": heard(wav, before=chunk(b"note", 3) + b"\0"),
    "wav, stereo, one channel silent": heard(wav, channels=2, sound=sine(channels=2) * [1, 0]),
    "wav, stereo, one channel inverted": heard(wav, channels=2, sound=inverted()),
    "flac, inverted, with noise": heard(snd, "FLAC", "PCM_16", channels=2, sound=inverted(0.01)),
    "wav, inverted, with much noise": heard(wav, channels=2, sound=inverted(0.1)),
    "m4a, one channel inverted": heard(encoded, "ipod", "aac", 48_000, 2, sound=inverted()),
    # --- files that were joined (`cat`) ----------------------------------------------------------------------------
    "two wavs joined": heard(lambda: wav() + wav(rate=44_100, channels=2, sound=sine(44_100, 2)), seconds=4.0),
    "wavs with notes behind, joined": heard(lambda: 2 * wav(after=chunk(b"LIST", 501)) + wav(), seconds=6.0),
    "wav and 24 bits joined": heard(lambda: wav() + encoded("wav", "pcm_s24le", 44_100, 2), seconds=4.0),
    "rf64 joined": heard(lambda: 2 * encoded("wav", "pcm_s24le", options={"rf64": "always"}), seconds=4.0),
    "aiff and aifc joined": heard(lambda: encoded("aiff", "pcm_s16be") + snd("AIFF", "FLOAT", 44_100), seconds=4.0),
    "two flacs joined": heard(lambda: snd("FLAC", "PCM_16") + snd("FLAC", "PCM_24", 44_100, 2), seconds=4.0),
    "two m4as joined": heard(
        lambda: encoded("ipod", "aac", 44_100) + encoded("ipod", "alac", 48_000, 2), seconds=SECONDS + 2.02
    ),
    "fragments of mp4 joined": heard(
        lambda: 2 * encoded("mp4", "aac", options={"movflags": "frag_keyframe+empty_moov"}), seconds=4.05
    ),
    "webm and a film joined": heard(
        lambda: encoded("webm", "libopus") + encoded("webm", "libopus", picture="libvpx"), seconds=4.0
    ),
    "two films joined (avi)": heard(
        lambda: encoded("avi", "libmp3lame", 44_100, picture="mpeg4") + encoded("avi", "ac3", 48_000, picture="mpeg4"),
        seconds=2.04 + 2.016,
    ),
    "caf joined": heard(lambda: encoded("caf", "pcm_s16be") + encoded("caf", "alac"), seconds=4.0),
    "w64 joined": heard(lambda: 2 * encoded("w64", "pcm_s16le"), seconds=4.0),
    "au joined": heard(lambda: encoded("au", "pcm_s16be") + encoded("au", "pcm_mulaw", 8_000), seconds=4.0),
    "voc joined": heard(lambda: 2 * encoded("voc", "pcm_u8", 8_000), seconds=4.0),
    "nist sphere joined": heard(lambda: 2 * snd("NIST", "PCM_16", 16_000), seconds=4.0),
    "tta joined": heard(lambda: 2 * encoded("tta", "tta"), seconds=4.0),
    "flv joined": heard(lambda: 2 * encoded("flv", "libmp3lame", 44_100), seconds=2 * 2.04),
    "wma joined": heard(lambda: 2 * encoded("asf", "wmav2", 44_100, 2, b="128k"), seconds=2 * 1.997),
    "amr joined": heard(lambda: 2 * encoded("amr", "libopencore_amrnb", 8_000, b="12200"), seconds=4.04),
    "wav and flac joined": heard(lambda: wav() + snd("FLAC", "PCM_16", 44_100), seconds=4.0),
    "wav and mp3 joined": heard(lambda: wav() + mp3(), seconds=4.04),
    "wav and a tagged mp3 joined": heard(lambda: wav() + id3(500) + mp3(xing=False), seconds=4.04),
    "mp3 and wav joined": heard(lambda: mp3() + wav(), seconds=4.03),
    "mp3 without Xing and opus joined": heard(lambda: mp3(xing=False) + encoded("ogg", "libopus"), seconds=4.04),
    "opus and mp3 joined": heard(lambda: encoded("ogg", "libopus") + mp3(), seconds=4.03),
    "flac and m4a joined": heard(lambda: snd("FLAC", "PCM_16") + encoded("ipod", "aac", 44_100), seconds=4.02),
    "m4a and aac joined": heard(lambda: encoded("ipod", "aac", 44_100) + encoded("adts", "aac", 44_100), seconds=4.06),
    "six kinds joined": heard(
        lambda: wav() + snd("FLAC", "PCM_16") + 2 * encoded("webm", "libopus") + mp3() + wav() + snd("AIFF", "PCM_16"),
        seconds=14.03,
    ),
    "wav, a tag of an mp3 behind": heard(lambda: wav() + id3(500)),
    # --- what holds no sound, or not all of it -------------------------------------------------------------------
    "nothing": refused("empty", lambda: b""),
    "web page": refused("web page", lambda: b"\n<!DOCTYPE html><html><body>Not found</body></html>" * 20),
    "text": refused("it is text", lambda: b"la la la\n" * 500),
    "text with umlauts": refused("it is text", lambda: "Fehler: größer\r\n".encode() * 50),
    "text of Windows": refused("it is text", lambda: "Fehler: größer\r\n".encode("utf-16") * 50),
    "web page, UTF-16": refused("web page", lambda: "<html><body>größer</body></html>".encode("utf-16")),
    "four bytes of a wav": refused("it ends after 4 bytes", lambda: wav()[:4]),
    "four bytes of a flac": refused("it ends after 4 bytes", lambda: b"fLaC"),
    "playlist": refused("playlist", lambda: b"#EXTM3U\nfile:///etc/passwd\n" * 9),
    "live playlist": refused(
        "playlist", lambda: b"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1/a.ts\n"
    ),
    "list of files": refused("playlist", lambda: b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "MIDI": refused("MIDI", lambda: b"MThd" + bytes(200)),
    "PDF": refused("PDF", lambda: b"%PDF-1.7\n" + bytes(300)),
    "picture": refused("picture", lambda: b"\x89PNG\r\n\x1a\n" + bytes(300)),
    "zip": refused("zip", lambda: b"PK\3\4" + bytes(300)),
    "noise": refused("not a sound file", lambda: np.random.default_rng(0).bytes(50_000)),
    "zeros": refused("not a sound file", lambda: bytes(50_000)),
    "film without sound": refused("holds video, no sound", film_without_sound),
    "wav, a header alone": refused("zero length", lambda: wav(sound=sine(seconds=0))),
    "wav, a header alone, notes behind": refused(
        "zero length", lambda: wav(sound=sine(seconds=0), after=chunk(b"LIST", 50))
    ),
    "wav, no bits": refused("not a sound file|could not|damaged|zero length", lambda: wav(bits=0, align=0)),
    "half a wav": refused("truncated", lambda: cut(wav())),
    "half a flac": refused("truncated or damaged", lambda: cut(snd("FLAC", "PCM_16"))),
    "a wav and half of one joined": refused("truncated", lambda: wav() + cut(wav())),
    "a flac and half of one joined": refused(
        "truncated or damaged", lambda: snd("FLAC", "PCM_16") + cut(snd("FLAC", "PCM_16"))
    ),
    "big-endian wav": refused("big-endian", lambda: snd("WAV", "PCM_16", endian="BIG")),
    "damaged flac": refused("truncated or damaged", lambda: damaged(snd("FLAC", "PCM_16"), 0.5)),
    "half an ogg": refused("truncated", lambda: cut(snd("OGG", "VORBIS", channels=2), 0.7)),
    "damaged ogg": refused("checksum", lambda: damaged(snd("OGG", "VORBIS"), 0.7)),
    "half an mp3": refused("truncated", lambda: cut(mp3())),
    "half an m4a": refused("not a sound file", lambda: cut(encoded("ipod", "aac"))),
    "half an m4a for the web": refused(
        "truncated or damaged", lambda: cut(encoded("ipod", "aac", options={"movflags": "faststart"}))
    ),
    "half an aiff": refused("truncated or damaged", lambda: cut(snd("AIFF", "PCM_16"))),
    "half a caf": refused("truncated: its header", lambda: cut(encoded("caf", "pcm_s16be"))),
    "half a caf, alac": refused("truncated: its header", lambda: cut(encoded("caf", "alac"))),
    "half a w64": refused("truncated: its header", lambda: cut(encoded("w64", "pcm_s16le"))),
    "half an avi": refused("truncated: its header", lambda: cut(encoded("avi", "pcm_s16le"), 0.6)),
    "half a film (webm)": refused(
        "truncated: its header", lambda: cut(encoded("webm", "libopus", picture="libvpx"), 0.6)
    ),
    "half a film (mkv)": refused(
        "truncated: its header", lambda: cut(encoded("matroska", "ac3", picture="mpeg4"), 0.6)
    ),
    "a wav and half of a film joined": refused(
        "truncated: its header", lambda: wav() + cut(encoded("matroska", "ac3", picture="mpeg4"), 0.6)
    ),
    "half a wma": refused("truncated", lambda: cut(encoded("asf", "wmav2", b="128k"))),
    "half a webm": refused("truncated: its header", lambda: cut(encoded("webm", "libopus"))),
}
