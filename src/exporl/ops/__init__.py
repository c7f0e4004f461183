"""Pure array functions: no modules, no parameters, no randomness except an explicit key."""
