"""Turn a trained run into a small, signed, quantized bundle."""
