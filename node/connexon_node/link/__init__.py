"""The node's link to the hub: it dials, introduces itself, stays attached, and renews its certificate in time."""
