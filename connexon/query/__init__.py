"""The question language: questions and conditions as Python values, as text, and as signed bytes.

Every form reads back to the same question, and what a reader does not understand is refused.
"""
