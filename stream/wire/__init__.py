"""Messages and the sockets that carry them: the one place that knows ZeroMQ."""
