"""The chord predictor without PyTorch: providers, placement, many files."""

from triadbench.export.predict.predictor import ChordPredictor

__all__ = ["ChordPredictor"]
