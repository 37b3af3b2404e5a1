"""What is measured while a network trains, and what is wrong with it."""
