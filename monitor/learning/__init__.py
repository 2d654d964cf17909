"""A reference out of the stream itself, for a model that came without one."""
