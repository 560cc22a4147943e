"""Marks in images: arrays in, arrays out. Knows nothing of pools or files."""
