"""A fake `libnvidia-ml.so.1` in C: a machine in shared memory, driven here, reached through the real pynvml."""
