"""ONNX: graphs are checked, run by PyTorch node by node, and exported from there. Runs only inside a job's child."""
