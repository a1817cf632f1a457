"""A read-only web page fed by server-sent events from the topics."""
