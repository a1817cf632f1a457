"""Messages from Kafka in; windows in Redis, dead letters, late records and notices out."""
