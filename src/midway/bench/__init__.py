"""What parts of Midway cost, measured on the machine at hand."""
