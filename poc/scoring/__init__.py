"""Judging answers with tools that may hang or run out of memory: they work in processes that can be killed."""
