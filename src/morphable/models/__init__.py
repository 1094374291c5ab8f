"""Models: the interface, its named parts and prior, and one file for each mechanism."""
