"""Training and packing of the bundled model; not part of the wheel."""
