"""From a PyTorch model to MLIR with the functions of the engine's ABI. Runs only inside a job's child process."""
