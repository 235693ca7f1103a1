"""Live runs on this machine: open-loop load, metered energy, and the same run replayed in the simulator."""
