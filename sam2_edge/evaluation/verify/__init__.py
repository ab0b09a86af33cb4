"""Comparing a bundle with PyTorch or with another bundle."""
