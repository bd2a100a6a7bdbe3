"""`tallystick docs`: write the documentation as files for any web server."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--out",
    default="build/site",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder, which is emptied before.",
)
def docs(*, out: Path) -> None:
    """Write the documentation, the reference of the API and a Postman collection as files for any web server.

    The pages need no server of ours: open index.html. The collection is api/postman.json; its variables `url` and
    `token` say where the service is, and who calls.

    \b
    Examples:
      tallystick docs
      tallystick docs --out /srv/www/tallystick
    """  # noqa: D301 - `\b` is how click is told not to wrap
    from ops.site.pages import ROOT, build

    if not (ROOT / "docs").is_dir():
        raise click.ClickException("The pages lie in docs/ of a checkout, and there is none here.")
    if out.exists() and any(out.iterdir()) and not (out / "site.css").exists():
        raise click.ClickException(f"{out} is not empty, and holds no site.")
    click.echo(f"{build(out)} pages in {out}")
