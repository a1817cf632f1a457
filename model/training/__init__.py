"""Pre-training on simulated series, fine-tuning on real ones."""
