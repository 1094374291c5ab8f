"""fit: find what makes a decoder reproduce a given shape."""
