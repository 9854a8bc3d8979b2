"""From the bus to this node's clients: topics, encoding once, send queues, coalescing, resuming."""
