"""What watching GPUs costs, and what to record on a machine that has some."""
