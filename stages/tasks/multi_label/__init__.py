"""Several labels a sample, each there or not: a logit for each label."""
