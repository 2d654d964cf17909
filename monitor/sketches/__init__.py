"""Mergeable, bounded summaries; none imports another."""
