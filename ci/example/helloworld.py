#!/usr/bin/env python3
"""Print "Hello" and the first argument."""

import sys

print("Hello", sys.argv[1])
