"""The bounds of the push server: its part of the settings, without their tables."""

from attrs import frozen


@frozen
class ServerLimits:
    """Bounds of ``server.serve``; everything in seconds or bytes."""

    max_connections: int = 10_000
    """Open at once; one more is answered 503."""
    max_connections_per_ip: int = 0
    """Of one IPv4 address or one IPv6 /64; 0 = no bound of its own."""
    max_message_bytes: int = 64 * 1024
    """Largest WebSocket message from a client, inflated; then close 1009."""
    frames_per_s: float = 200.0
    """WebSocket frames with data of one client, fragments too; above it: close 1008."""
    frame_burst: int = 2000
    controls_per_s: float = 20.0
    """Pings and pongs of one client, which cost more to answer than to send; then close 1008."""
    control_burst: int = 200
    http_per_s: float = 200.0
    """HTTP requests of one address on all its connections; beyond, each waits up to a second."""
    http_burst: int = 1000
    send_timeout_s: float = 10.0
    """A client that takes no byte for this long is dropped."""
    handshake_timeout_s: float = 10.0
    """From the accept, or from the last response, to the end of the next request head; TLS too."""
    body_timeout_s: float = 10.0
    """From the end of a request's head to the end of its body."""
    receive_timeout_s: float = 180.0
    """A client that sends no byte for this long is dropped; a live one answers pings."""
    max_head_bytes: int = 16 * 1024
    max_body_bytes: int = 1024 * 1024
    """Body of an HTTP request; then 413."""
    startup_timeout_s: float = 10.0
    """The app's lifespan start-up."""
    shutdown_grace_s: float = 1.0
    """For what is being finished when the server ends, and again for the app's own shutdown."""
