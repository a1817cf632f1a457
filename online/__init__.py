"""Keep forecasts alive and honest: worker, scores, drift, fine-tuning, gate, registry, swap."""
