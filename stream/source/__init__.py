"""A simulated shop or a file in, events on the topics out, in step with ingest and the clock."""
