"""A campaign: from a YAML file to a run directory with journal, champion and report."""
