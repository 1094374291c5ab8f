"""Report: one self-contained page of pictures, charts and tables about a trained model."""
