"""Studies: a recipe's cells and the executors that run them. Knows verbs by name only, and no method."""
