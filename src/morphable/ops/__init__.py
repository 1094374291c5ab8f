"""Torch operators on a fixed mesh: public tensors are (B, V, C), the geometry enters as
non-persistent buffers.
"""
