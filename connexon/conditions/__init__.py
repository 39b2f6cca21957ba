"""Conditions on rows: a closed language as a tree, as text, as Python expressions and on the wire, with its limits.

Every form reads back to the same condition, and what a reader does not understand is refused.
"""
