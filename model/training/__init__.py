"""Windows in, weights out: pre-training on simulated series, fine-tuning on real ones."""
