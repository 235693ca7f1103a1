"""The vocabulary of the core: what is wished for, what exists, what runs, what was seen. Values, no decisions."""
