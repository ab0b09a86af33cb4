"""From frames to graphs in INT8: ranges of values, what to quantize, and what it does."""
