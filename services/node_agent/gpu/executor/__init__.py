"""The MIG executor: runs what `core/mig/execution.py` decides, one device call at a time, with a journal beside it."""
