"""Read and write network weights, in our files and in those of others."""
