"""Evaluation: errors in millimeters with intervals, and the measures of a morphable model beyond
them.
"""
