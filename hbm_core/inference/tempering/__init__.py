"""Non-reversible parallel tempering: replicas at several temperatures from the prior to the posterior."""
