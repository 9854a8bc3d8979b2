"""More than one process behind one port: the parent feeds and stores, workers serve clients."""
