"""For tests and scripts: what judges a run of the service.  Nothing of the product imports it."""
