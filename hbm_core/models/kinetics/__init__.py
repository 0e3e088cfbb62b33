"""Mechanisms: species, parameters and reactions, declared as text, solved with their sensitivities."""
