"""Benches: hipray and a peer, measured in the same run; one module for each bench."""
