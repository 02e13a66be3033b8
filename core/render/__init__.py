"""Sound made here: synthesiser, note banks, chords, progressions, rooms, amplifier."""
