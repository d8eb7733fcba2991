"""Plain counterparts of what is measured: code as papers publish it, and its comparison."""
