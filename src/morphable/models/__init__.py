"""Models: the interface, the named parts of a code, the prior, and one file per mechanism."""
