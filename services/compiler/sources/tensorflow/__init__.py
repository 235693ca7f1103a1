"""TensorFlow and Keras: read by TensorFlow, turned into ONNX by tf2onnx. Runs only inside a job's child; optional."""
