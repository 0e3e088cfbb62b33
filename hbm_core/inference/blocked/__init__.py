"""Blocked sampling: circuits with their means by trajectories, their covariance by many cheap ones."""
