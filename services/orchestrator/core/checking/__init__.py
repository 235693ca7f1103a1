"""An independent check of a plan: shares only the vocabulary with the planner, no code."""
