"""From frames to graphs in INT8: ranges of values, what to quantise, and what it does."""
