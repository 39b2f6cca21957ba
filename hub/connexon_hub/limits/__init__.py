"""What a caller may cost the hub: open connections, calls under way, and refusals in the log."""
