"""What a forecast is made from, and the record that says it: one batch after the other."""
