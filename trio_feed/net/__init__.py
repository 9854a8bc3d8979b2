"""Bytes: tunnels, WebSockets, REST and their limits.  No venue is named here."""
