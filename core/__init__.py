"""Labels, audio, datasets, rendering, networks, training, evaluation and inference."""
