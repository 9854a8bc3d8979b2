"""The server: connections, TLS, who is admitted, request and frame checks, HTTP pages."""
