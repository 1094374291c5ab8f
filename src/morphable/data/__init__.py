"""Data: registered meshes with labels and splits, in a folder format that any tool can read."""
