"""register: bring scans of any topology onto a template, so that they become a dataset."""
