"""Scenario `circuits`: covariance over the rate constants of RNA circuits.

Data, simulator and models; the scenario's own class comes with its pages, so nothing is listed yet.
"""
