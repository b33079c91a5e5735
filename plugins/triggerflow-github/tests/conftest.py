"""The suite runs against the source tree: the plugin needn't be installed for it."""

import sys
from pathlib import Path

# An installed plugin would load itself into every app that other suites make.
sys.path.insert(0, str(Path(__file__).parents[1]))
