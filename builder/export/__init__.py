"""Writing images out: layouts, archives, file systems, registries."""
