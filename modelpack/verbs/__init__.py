"""Verbs: what is done with stores."""
