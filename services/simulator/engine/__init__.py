"""Replicas, nodes and requests in simulated time."""
