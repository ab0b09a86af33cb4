"""Following a live source: capture, tracking, writing and recovery, each in its own thread."""
