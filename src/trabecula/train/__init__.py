"""One training loop for every method: a step yields `Update(group, loss)`, the loop moves the weights."""
