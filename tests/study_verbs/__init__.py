"""Tiny verbs for the tests of studies; recipes name them by their dotted module name."""
