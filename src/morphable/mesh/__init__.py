"""Meshes: pure functions that compute geometry once, outside the networks, in double precision."""
