"""From records to scorer weights: sampling, losses, and the loop."""
