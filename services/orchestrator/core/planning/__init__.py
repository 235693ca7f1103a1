"""From a situation to a whole blueprint, with reasons."""
