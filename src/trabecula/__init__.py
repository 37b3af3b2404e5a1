"""Trabecula: image encoders from many medical images and few labels, and whether it paid."""

__version__ = "0.1.0"
