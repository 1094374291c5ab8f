"""Importers: registered meshes that others made, read from their files."""
