"""How a node answers a question: verify, authorize, apply consent, compute, release, record.

Each step takes the value that only the step before it can make, so that none can be left out.
"""
