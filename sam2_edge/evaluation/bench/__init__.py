"""Measuring speed and memory, interleaved frame by frame."""
