"""Events in, windows out: Kafka records folded exactly once into time-major tiles in Redis."""
