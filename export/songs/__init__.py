"""The chords of a song over time: windows, onsets, decoding, harmony, files."""

FORMATS = ("lab", "json", "csv", "mid", "html")  # files that `export.songs.files.write` writes, by suffix
