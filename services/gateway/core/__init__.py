"""The gateway's decisions: pure, no clock, no I/O, no async."""
