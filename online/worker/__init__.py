"""Windows, side inputs and weights come in; forecasts, scores and drift alerts go out."""
