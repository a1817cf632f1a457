"""Is one version of the weights better than another, by what both lost: yes, no, not yet. Pure."""
