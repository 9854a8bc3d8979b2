"""What lies between feeds and clients: numbers, history and resume."""
