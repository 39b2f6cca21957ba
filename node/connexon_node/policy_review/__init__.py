"""Policies reviewed before and after they are in force: cases, checks, explanations, and replay of past requests.

Nothing here releases or records anything.
"""
