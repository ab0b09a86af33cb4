"""Measures the speed and memory of bundles and PyTorch side by side."""
