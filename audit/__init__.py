"""Pools on disk: read, score, estimate, decide, write, report."""
