"""Decisions of the profiler: pure. No clock, no randomness, no I/O, no async in here."""
