"""Passes that a recipe names. Each changes the form of a model and, beyond what its page says, never its result.

docs/passes.md says of each what it does to the code and what it buys.
"""
