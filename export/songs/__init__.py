"""The chords of a song over time: windows, beats, decoding, harmony, files."""
