"""What every method is trained with: one thing a file."""
