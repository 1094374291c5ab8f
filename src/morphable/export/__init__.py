"""Export: files of a model for other programs, namely ONNX, GLB, linear models and an HTML page."""
