"""What things cost on this machine: `midway bench`."""
