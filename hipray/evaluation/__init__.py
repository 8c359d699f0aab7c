"""Evaluate out-of-fold predictions and write the report; runs without Ray."""
