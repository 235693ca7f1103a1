"""Front ends: from the form a model came in to a normalised folder. Runs only inside a job's child process."""
