"""Is this machine ready? Every line is ok, or says what to do."""
