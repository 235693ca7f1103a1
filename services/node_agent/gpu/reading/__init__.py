"""NVML read in a process of its own: a library that crashes or hangs takes neither the agent nor its replicas along."""
