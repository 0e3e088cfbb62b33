"""Requests, jobs and results: what is fitted, by whom, and where it is kept."""
