"""The process that folds: messages from Kafka in, windows in Redis and notices on the windows topic
out.
"""
