"""The chords of a song over time: windows, onsets, decoding, harmony, files."""
