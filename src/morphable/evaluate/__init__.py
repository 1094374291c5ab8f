"""Evaluation: errors in millimetres with intervals, and the measures of a morphable model beyond them."""
