"""Evaluation: vertex errors in millimeters with confidence intervals, and further measures of
morphable models.
"""
