"""Fault schedules and what carries them out."""
