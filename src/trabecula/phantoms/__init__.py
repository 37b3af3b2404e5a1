"""Phantoms of patients: pictures and tables drawn by rule, with known truth and no real person in them."""
