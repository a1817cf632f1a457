"""A retrain request in, a verdict out, and new weights where it is yes."""
