"""The app in the browser: clips, songs, ear training and practice. `server.serve` starts it.

The module `page` draws it with Gradio; `server` decides who may fetch what, and for how long. The others know nothing
of Gradio.
"""

from triadbench.core.files import PACKAGE

FOLDER = PACKAGE / "export" / "app"  # holds the templates, style sheets, script and examples
EXAMPLES = FOLDER / "examples"
