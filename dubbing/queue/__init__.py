"""Who is next: an index of waiting jobs that can be rebuilt from their rows at any time."""
