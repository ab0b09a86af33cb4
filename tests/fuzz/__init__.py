"""Fuzzing of everything that comes from outside."""

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
"""Inputs that are always tried, in a folder per target."""
