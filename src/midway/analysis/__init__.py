"""What a trained network knows: perturbation, tracking, pictures."""
