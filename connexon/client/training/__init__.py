"""Training from the researcher's side: start a run, follow it, verify its model and predict with it."""
