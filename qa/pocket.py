"""Where the bundled model, questions and settings are.

The trap: they are found beside the package, so the project is used from its own folder.
"""

from pathlib import Path

POCKET = Path(__file__).resolve().parent.parent / "pocket"
POCKET_MODEL = POCKET / "model"
POCKET_DATA = POCKET / "data"
POCKET_SETTINGS = POCKET / "config.yaml"
