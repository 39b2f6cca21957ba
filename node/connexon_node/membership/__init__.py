"""The node's place in its federation: joining, its keys, the newest roster, accredited researchers and revocations."""
