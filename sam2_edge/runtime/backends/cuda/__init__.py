"""CUDA: the driver, device memory, graphs, and what the GPU backends share."""
