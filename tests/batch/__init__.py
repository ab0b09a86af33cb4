"""Tests of batches of videos."""
