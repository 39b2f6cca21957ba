"""Ontology files as they are published, read alike by centers and researchers, and an index that finds their terms."""
