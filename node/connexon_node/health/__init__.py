"""How the node is doing: its status, and the doctor that probes every step between this node and an answer."""
