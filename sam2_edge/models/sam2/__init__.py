"""SAM 2 and SAM 2.1: a Hiera backbone and a memory of grids."""
