"""More than one machine: a log that may forget, between nodes that feed and nodes that serve."""
