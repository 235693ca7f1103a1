"""Devices behind one port: CPUs, simulated ones; others implement `port.Device` and pass its contract suite."""
