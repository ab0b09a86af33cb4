"""Tracking on live sources: capture with recovery, tracking and writing, in separate threads."""
