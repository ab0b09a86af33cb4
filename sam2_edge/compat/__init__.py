"""The original `sam2` package's API on exported graphs, for code that was written for it."""
