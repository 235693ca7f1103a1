"""What devices cost: public measurements, fits with their errors, stated assumptions."""
