"""CUDA: calls, device memory, graphs, and the base class of the GPU backends."""
