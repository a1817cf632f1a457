"""A seed in, batches of synthetic series out, made as whole tensors on any device."""
