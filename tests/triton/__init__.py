"""Tests of the model for Triton and of its client."""
