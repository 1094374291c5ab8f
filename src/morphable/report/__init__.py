"""Report: a trained model and its measures as one self-contained page of pictures, charts and
tables.
"""
