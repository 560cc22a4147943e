"""Autophagous loops: generators, families, theory, admissible region."""
