"""How good a variant's answers are, and whether they are good enough to serve. Runs inside a job's child process."""
