"""Our own verbs."""
