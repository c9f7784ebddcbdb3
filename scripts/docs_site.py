"""MkDocs hook: pages may link to any file of the repository, as on a Git host.

README.md becomes the home page. Every other file or folder outside docs/ that a page links to gets
its own page: Markdown unchanged, code and folders as listings. The notebook becomes a page with its
outputs.
"""

import json
import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def _site_path(path: str) -> str:
    """Path of a repository file on the site."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    return path if path.endswith(".md") else f"{path}.md"


def _text(path: str) -> str:
    file = ROOT / path
    if file.is_dir():
        names = sorted(entry.name for entry in file.iterdir() if entry.name[0] not in "._")
        return "\n".join([f"# {path}/\n", *(f"- [{name}]({file.name}/{name})" for name in names)])
    if file.suffix == ".md":
        return file.read_text()
    return f"# {path}\n\n```{file.suffix[1:]}\n{file.read_text()}```\n"


def _notebook(path: Path) -> str:
    """The cells of an executed notebook as Markdown."""
    text = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text.append(source)
            continue
        text.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if "text" in output:
                text.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/jpeg" in output["data"]:
                jpeg = "".join(output["data"]["image/jpeg"]).replace("\n", "")
                text.append(f"![output](data:image/jpeg;base64,{jpeg})")
    return "\n\n".join(text)


def _linked(path: str, link: str) -> str:
    """Target of a link in a file, relative to the root; "" if it does not exist."""
    target = os.path.normpath(os.path.join(os.path.dirname(path), link))
    return target if (ROOT / target).exists() else ""


def on_files(files, config):
    """Add README.md, the notebook, and all files outside of docs/ that pages link to."""
    seen = {"README.md"} | {f"docs/{file.src_uri}" for file in files.documentation_pages()}
    todo = list(seen)
    while todo:
        path = todo.pop()
        text = _text(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, _site_path(path), content=text))
        if path.endswith(".md") or (ROOT / path).is_dir():
            linked = {_linked(path, link) for link in LINK.findall(text)} - seen - {""}
            new = {target for target in linked if not target.startswith("docs/")}
            seen |= new
            todo += new
    text = _notebook(ROOT / "docs" / "tutorial.ipynb")
    files.append(File.generated(config, "tutorial.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    if page.file.generated_by is None or here == "tutorial.md":
        path = f"docs/{here}"
    else:
        path = "README.md" if here == "index.md" else here

    def moved(match):
        target = _linked(path, match[1])
        if not target:
            return match[1]  # MkDocs reports it
        return os.path.relpath(_site_path(target), os.path.dirname(here) or ".")

    return LINK.sub(moved, markdown)
