"""What a hierarchy is made of: priors, data, model structures and their parameterizations."""
