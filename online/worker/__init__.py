"""Windows and side inputs in, forecasts and scores out, round after round."""
