"""Computations rewritten for one processor. All of them can be turned off."""
