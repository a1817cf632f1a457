"""Arrays in, quantiles out: the forecasting network, its training and its yardsticks."""
