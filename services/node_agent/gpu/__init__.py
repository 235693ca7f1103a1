"""NVIDIA boards: one port (`port.py`), its back-ends, the privileged helper, the MIG executor, power and telemetry."""
