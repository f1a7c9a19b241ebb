"""Recommend on the device: open a signed bundle, keep a local profile, rank with onnxruntime."""
