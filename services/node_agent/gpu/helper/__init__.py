"""The privileged helper: a small root process that does a closed list of things to NVIDIA boards, and nothing else.

agent (unprivileged) ── Unix socket ── server (root; parses, checks, audits, keeps leases) ── pipe ── worker (NVML)

The worker alone loads the vendor's library: when a call hangs or crashes it, the server answers, kills it, and starts
another. Page: docs/helper.md.
"""
