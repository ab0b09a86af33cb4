"""Numbers of frames and objects of a benchmark."""

FILLING_FRAMES = 16
"""Frames until SAM 2's memory is full: one conditioning frame and 15 others with a pointer."""

UNCOUNTED_FRAMES = FILLING_FRAMES + 8
"""Frames excluded from results: on the first ones with full memory, backends still compile kernels,
capture graphs and allocate memory."""

MIN_COUNTED = 10
"""Minimum number of frames to measure."""

MAX_BENCH_OBJECTS = 16
