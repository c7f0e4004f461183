"""A policy behind a WebSocket, in openpi's protocol, and the client for a robot without JAX."""
