"""The way of a query from its researcher to the centers and of each answer back.

Everything is written down before it is acknowledged, and nothing passes that is not signed by who should have signed.
"""
