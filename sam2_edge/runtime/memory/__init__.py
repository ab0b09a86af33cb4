"""The tracker's memory: the memory bank, pending results and memory policies."""
