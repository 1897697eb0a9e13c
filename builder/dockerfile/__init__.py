"""Reading Dockerfiles: directives, parser, words, instructions, stages."""
