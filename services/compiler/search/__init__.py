"""Finds the recipes worth having for a model on a target, within a time budget; `core` decides, the rest acts."""
