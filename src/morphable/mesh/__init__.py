"""Mesh: geometry computed once, outside the networks, in double precision, by pure functions."""
