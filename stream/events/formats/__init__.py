"""What a shop's records come wrapped in, to JSON: Avro, Protobuf, Debezium, CloudEvents, gzip."""
