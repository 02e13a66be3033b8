"""Export to TorchScript and ONNX, verification, and torch-free inference."""
