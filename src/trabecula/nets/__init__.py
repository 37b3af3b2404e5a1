"""Networks: encoders and what they are made of, generators, heads."""
