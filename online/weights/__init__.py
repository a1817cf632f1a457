"""A directory of trained weights comes in; a version to serve goes out, swapped without a pause."""
