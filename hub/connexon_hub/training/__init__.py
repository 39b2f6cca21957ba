"""Training runs: Flower's strategies in a process for each run, tasks over the durable link, a registry of models.

Everything that the outside decided in a run is written down: which centers took part, what they replied, who was late.
A run that is taken up again after the hub was killed works through the same replies and goes on where it was; no center
is asked anything twice. The hub's own process never loads Flower.
"""
