"""Checks what the Markdown files of the repository refer to: files, anchors (as GitHub makes them), commands and options of
`neonhub`, settings, targets of `make`, the tests that docs/SECURITY.md says show something, and that docs/SUMMARY.md lists every page of docs. Links that leave the repository are not
followed.

Usage: python3 deploy/check_links.py
Prints one line per finding; exit code 1 if there is any.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
PASSED_OVER = {"target", "node_modules"}

FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#* *$", re.MULTILINE)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]: +<?(\S+?)>?$|(?:href|src)=\"([^\"]+)\"", re.MULTILINE)
ANCHOR = re.compile(r"<\w+ [^>]*(?:id|name)=\"([^\"]+)\"")
OUTSIDE = re.compile(r"^[a-z][a-z0-9+.-]*:|^//", re.IGNORECASE)

# Where a shell looks for a command: `kubectl -n neonhub` is none.
COMMAND = re.compile(r"(?:^|[(;&|/]\s*|(?<=\s)\w+=\S+ +|^\w+=\S+ +|\bexec )neonhub((?:[ \t]+[^\s`;|&)]+)+)", re.MULTILINE)
SETTING = re.compile(r"\bNEONHUB_[A-Z0-9_]*[A-Z0-9]\b(?![…*])")
MAKE = re.compile(r"(?:^|[;&|(`] *|: )make((?: +[\w-]+(?:=\S+)?)+)", re.MULTILINE)
PATH = re.compile(r"(?<![\w./:@$<>{}*-])[\w.-]+(?:/[\w.-]+)+(?![\w/]*[{*…<$])")


def main() -> int:
    pages = sorted(path for path in ROOT.rglob("*.md") if not is_passed_over(path))
    found = [finding for page in pages for finding in findings(page)] + list(unlisted_pages())
    for finding in found:
        print(finding, file=sys.stderr)
    if not found:
        print(f"{len(pages)} Markdown files: what they refer to is there")
    return 1 if found else 0


def is_passed_over(path: Path) -> bool:
    return any(part in PASSED_OVER or part.startswith(".") for part in path.relative_to(ROOT).parts)


def findings(page: Path) -> Iterator[str]:
    name = page.relative_to(ROOT)
    text = page.read_text(encoding="utf-8")
    for each in (broken_links, unknown_commands, unknown_settings, unknown_targets, missing_paths, unknown_tests):
        yield from (f"{name}: {finding}" for finding in each(page, text))


def broken_links(page: Path, text: str) -> Iterator[str]:
    prose = CODE_SPAN.sub("", COMMENT.sub("", FENCE.sub("", text)))
    for match in LINK.finditer(prose):
        target = next(group for group in match.groups() if group)
        if OUTSIDE.match(target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"the link {target} leads nowhere"
        elif not file.is_relative_to(ROOT):
            yield f"the link {target} leaves the repository"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"the link {target} names no heading of {file.relative_to(ROOT)}"


@cache
def anchors(page: Path) -> set[str]:
    text = COMMENT.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    known, seen = set(ANCHOR.findall(text)), {}
    for heading in HEADING.findall(text):
        # A link's text counts, its target does not; punctuation goes, blanks become dashes.
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        times = seen[slug] = seen.get(slug, -1) + 1
        known.add(f"{slug}-{times}" if times else slug)
    return known


def code(text: str) -> str:
    """Fences and code spans, a line each; a command that is continued is one line."""
    spans = [match[2].replace("\n", " ") for match in CODE_SPAN.finditer(FENCE.sub("", text))]
    fences = [match[0] for match in FENCE.finditer(text)]
    return "\n".join([*spans, *fences]).replace("\\\n", " ")


@cache
def commands() -> dict[tuple[str, ...], str]:
    """Each command and its help. deploy/reference.sh sees to it that the page is right."""
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    sections = re.split(r"^#{2,} neonhub", page, flags=re.MULTILINE)[1:]
    return {tuple(section.splitlines()[0].split()): section for section in sections}


def unknown_commands(page: Path, text: str) -> Iterator[str]:
    if page == ROOT / "docs/reference/cli.md":
        return
    for match in COMMAND.finditer(code(text)):
        words, command = [word.strip("[]") for word in match[1].split()], ()
        while len(command) < len(words) and command + (words[len(command)],) in commands():
            command += (words[len(command)],)
        rest = words[len(command) :]
        if not command and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            yield f"there is no command `neonhub {rest[0]}`"
        elif rest and command and "\nCommands:\n" in commands()[command] and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            yield f"there is no command `neonhub {' '.join((*command, rest[0]))}`"
        for option in (word.split("=")[0] for word in rest if word.startswith("--")):
            if not re.search(rf"(^|[\s,]){option}\b(?!-)", commands()[command]):
                yield f"`neonhub {' '.join(command)}` has no option {option}"


@cache
def names_in_code() -> set[str]:
    """Variables that scripts, tests and the settings' table know."""
    kinds = {".rs", ".sh", ".py", ".js", ".mjs", ".toml", ".yml", ".yaml", ""}
    files = [path for path in ROOT.rglob("*") if path.suffix in kinds and not is_passed_over(path) and path.is_file()]
    table = (ROOT / "topology/src/settings/table.rs").read_text(encoding="utf-8")
    names = {f"NEONHUB_{name.upper()}" for name in re.findall(r"(?:open|secret)\(\s*\"(\w+)\"", table)}
    for path in files:
        names |= set(SETTING.findall(path.read_text(encoding="utf-8", errors="replace")))
    return names


def unknown_settings(_: Path, text: str) -> Iterator[str]:
    for name in sorted(set(SETTING.findall(text)) - names_in_code()):
        if name.removesuffix("_FILE") not in names_in_code():
            yield f"nothing reads {name}"


def unknown_targets(_: Path, text: str) -> Iterator[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for match in MAKE.finditer(code(text)):
        for word in match[1].split():
            variable = word.partition("=")[0]
            if "=" in word and f"$({variable})" not in makefile:
                yield f"the Makefile has no variable {variable}"
            if "=" not in word and word not in targets:
                yield f"the Makefile has no target {word}"


def missing_paths(page: Path, text: str) -> Iterator[str]:
    """What begins with a folder that is there, at the top or beside the page."""
    for path in sorted(set(PATH.findall(code(text)))):
        first = path.split("/")[0]
        houses = [house for house in (ROOT, page.parent) if (house / first).is_dir() and first not in PASSED_OVER | {"..", "."}]
        if houses and not any((house / path).exists() for house in houses):
            yield f"there is no {path}"


TEST = re.compile(r"#\[(?:tokio::)?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:async )?fn (\w+)")


@cache
def tests() -> tuple[set[str], set[str]]:
    """Names of tests and of scenarios that are run, and of the crates and modules that have tests."""
    sources = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("*/**/*.rs") if not is_passed_over(path)}
    with_tests = {path: set(TEST.findall(text)) for path, text in sources.items() if TEST.search(text)}
    run = sources[ROOT / "topology/tests/it/main.rs"]
    scenarios = {word for path in ROOT.glob("topology/tests/it/scenarios/*.rs") for word in [path.stem] if re.search(rf"\b{word}\b", run)}
    modules = {part.removesuffix(".rs") for path in with_tests for part in path.relative_to(ROOT).parts}
    return scenarios.union(*with_tests.values()), modules


def unknown_tests(page: Path, text: str) -> Iterator[str]:
    """What stands in a column `shown by`."""
    if page != ROOT / "docs/SECURITY.md":
        return
    known, modules = tests()
    for row in re.findall(r"^\|.*\| *$", "".join(re.findall(r"(?<=\| shown by \|\n)(?:\|.*\n)+", text)), re.MULTILINE):
        for span in CODE_SPAN.finditer(row.strip("| ").rpartition("|")[2]):
            *within, name = span[2].split("::")
            if re.fullmatch(r"\w+", name) and not (name in known or not within and name in modules):
                yield f"no test is called {name}"
            yield from (f"{module} has no tests" for module in within if module not in modules)


def unlisted_pages() -> Iterator[str]:
    docs = ROOT / "docs"
    listed = {(docs / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", (docs / "SUMMARY.md").read_text(encoding="utf-8"))}
    for page in sorted(docs.rglob("*.md")):
        if page.name != "SUMMARY.md" and page not in listed:
            yield f"docs/SUMMARY.md: {page.relative_to(docs)} is missing"


if __name__ == "__main__":
    sys.exit(main())
