"""Adds ideas to a running sample application, and lists them. Standard library only.

ideas.py URL add TITLE TEXT
ideas.py URL list
"""

import json
import sys
from base64 import b64encode
from urllib.request import Request, urlopen


def add(url: str, title: str, text: str) -> None:
    """Store an idea with a document."""
    idea = {"title": title, "text": text, "author": "you", "document": b64encode(text.encode()).decode()}
    request = Request(f"{url}/api/ideas", data=json.dumps(idea).encode(), headers={"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as answer:
        print(f"stored: {json.load(answer)['title']}")


def show(url: str) -> None:
    """List the ideas."""
    with urlopen(f"{url}/api/ideas", timeout=10) as answer:
        for idea in json.load(answer)["ideas"]:
            print(f"{idea['title']}: {idea['text']}")


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case [url, "add", title, text]:
            add(url.rstrip("/"), title, text)
        case [url, "list"]:
            show(url.rstrip("/"))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
