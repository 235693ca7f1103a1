"""Tuning specs: how IREE tiles the matrix products of a module, by their rows."""
