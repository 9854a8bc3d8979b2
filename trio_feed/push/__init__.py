"""The push side: one local endpoint for many clients."""
