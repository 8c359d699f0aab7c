"""Batch scoring without Ray: frozen shards of an archive, their rows and what they add up to."""
