"""Measures of accuracy, parity and speed."""
