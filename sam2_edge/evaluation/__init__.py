"""Measures of whether a result is right."""
