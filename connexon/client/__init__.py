"""A researcher's connection to a federation: ask every center one question and read the combined answer.

Each center's part is verified here before it counts; one that fails is a reason in the answer, never a zero.
"""
