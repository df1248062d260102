"""Detection models of the user: ONNX files of person and pose models, and rtmlib."""
