"""Synthetic series to pre-train on, made as whole batches of tensors on any device."""
