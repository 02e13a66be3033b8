"""Sound made here: synthesiser, note banks, chords, songs, rooms, amplifier."""
