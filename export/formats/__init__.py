"""ONNX and TorchScript files: written, reduced in precision, verified."""
