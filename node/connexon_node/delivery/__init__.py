"""A question's way through the node: inbox, jobs and outbox.

A delivered question is written down before it is acknowledged, and worked on until its answer has been kept.
"""
