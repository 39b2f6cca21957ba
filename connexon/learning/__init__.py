"""What all parties share of training models: the recipe, its bytes, records and how rows become inputs.

`recipe` and `wire_recipe` are part of the question language and load nothing heavy; the rest needs `connexon[learn]`.
"""
