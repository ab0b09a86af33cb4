"""SAM 3's tracker: a plain vision transformer with windows, then the memory of SAM 2."""
