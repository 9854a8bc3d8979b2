"""What every simulated exchange has: server, connections, scheduler, send queue, memory network."""
