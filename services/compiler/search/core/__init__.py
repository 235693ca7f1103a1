"""What a search decides, from what was measured so far and the time spent. Pure: no clock, no files, no waiting."""
