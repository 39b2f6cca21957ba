"""The hub: membership, routing and adding up. It is trusted with nothing more."""
