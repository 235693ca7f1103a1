"""What traffic, speed and power teach, and what follows for the next plan."""
