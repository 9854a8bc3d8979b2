"""The driver: connections, questions and timers round the pure core, one venue at a time."""
