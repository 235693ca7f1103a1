"""Operating points out of our own store: profiles measured by node agents instead of public tables."""
