"""What the tracker remembers of each object, and which of it counts on a frame."""
