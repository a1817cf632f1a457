"""What all items of a shop do alike: as records on a topic, and as of any cutoff."""
