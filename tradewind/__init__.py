"""Tradewind: language models under latency and energy SLOs."""

__version__ = "0.1.0"
