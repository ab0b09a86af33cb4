"""From a bundle of ONNX graphs to a bundle of TensorRT engines; needs no PyTorch."""
