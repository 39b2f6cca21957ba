"""Training models with other centers: the tasks of a run, done on this center's rows, whose updates alone leave."""
