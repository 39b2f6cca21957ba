"""The hub's gRPC services behind one guard: it admits a call; the service translates messages and decides nothing."""
