"""What a network's outputs mean, how they are judged and what they are trained for: one folder a task."""
