"""Discrete-event simulator: the live decision code over modelled replicas. Everything that comes out is simulated."""
