"""From steps to images: layers, config, manifest."""
