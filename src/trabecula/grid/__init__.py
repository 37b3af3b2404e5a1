"""Studies: a recipe's cells and the processes that run them. Knows verbs, knows no method."""
