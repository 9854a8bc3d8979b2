"""One file per command, thin; what they decide is in pure files beside them."""
