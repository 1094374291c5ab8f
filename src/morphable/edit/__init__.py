"""Editing: arithmetic on codes with named parts, the same for every family."""
