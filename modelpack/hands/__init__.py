"""Hands: disks, hashes, connections. They know nothing of models."""
