"""The command `app`. Imports what it needs in its body."""

import click

from triadbench.core.commands import console
from triadbench.core.constants import PROVIDERS
from triadbench.core.files import ModelFiles


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 lets the whole network in.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, help="0 is any free one.")
@console.model_option("Exported model or checkpoint.  [default: the shipped models]")
@click.option("--provider", type=click.Choice(PROVIDERS), help="First in the menu.  [default: as `infer`]")
@click.option("--threads", type=click.IntRange(1), default=1, help="CPU threads for one answer.")
@click.option("--max-mb", type=click.FloatRange(0.1, 4000), default=100.0, help="Largest file that is taken.")
@click.option("--max-minutes", type=click.FloatRange(0.1, 600), default=30.0, help="Longest song that is taken.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@console.json_option
def app(
    host: str,
    port: int,
    model: ModelFiles | None,
    provider: str | None,
    threads: int,
    max_mb: float,
    max_minutes: float,
    no_browser: bool,
    as_json: bool,
) -> None:
    """Serve the app: chords of clips and songs, ear training and practice, in the browser, without the internet.

    It listens on this computer alone unless --host says otherwise. Files that visitors send are deleted after an hour,
    and when it ends. Ctrl-C ends it.

    \b
    Examples:
      python cli.py app
      python cli.py app --port 0 --no-browser
      python cli.py app --host 0.0.0.0 --max-mb 20 --max-minutes 10
      python cli.py app --port 0 --no-browser --json
    """
    import webbrowser

    from triadbench.export.app.predictors import Predictors
    from triadbench.export.app.server import serve

    console.resume_hint("the app has ended, and what visitors sent is deleted")

    def started(address: str) -> None:
        if as_json:
            console.print_json({"address": address})
        else:
            console.write(f"{address}\n")
        console.note("Ctrl-C ends the app.")
        if not no_browser:
            webbrowser.open(address)

    serve(Predictors(model, provider, threads), host, port, max_mb, max_minutes, started)
