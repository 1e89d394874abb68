"""Turns the Rust documentation that rustup installs into plain Markdown pages.

Input: the HTML under `$(rustc --print sysroot)/share/doc/rust/html` (licensed MIT OR Apache-2.0).
Output: one JSON object a line: {"source", "path", "title", "text", "sections", "items"}.

- text: the page as Markdown, code blocks kept, hidden example lines left out
- sections: [[heading, first paragraphs below it]], what the chat turns are made from
- items: [[name, kind, first sentences]], the documented API items of a page
"""

import json
import multiprocessing
import os
import re
import subprocess
import sys

from lxml import html

BOOKS = [
    "book", "reference", "rust-by-example", "nomicon", "cargo", "edition-guide", "embedded-book", "error_codes", "rustc",
    "rustdoc", "style-guide", "unstable-book", "clippy",
]
# Pages that repeat others (whole book on one page, tables of contents, other languages, old editions).
SKIP = re.compile(
    r"(^|/)(print|toc|SUMMARY|404|all|title-page)\.html$|^rust-by-example/(es|ja|ko|zh)/|^book/(20\d\d|first|second)|"
    r"^std/(arch|simd|os/raw|intrinsics|f16|f128)/|^std/primitive\.(f16|f128)|^std/keyword\.|/index\.html\?|"
    r"^unstable-book/(library-features|language-features)\.html$|^error_codes/error-index|^rustc/platform-support/.*(template)"
)
BLOCKS = {"p", "div", "section", "ul", "ol", "li", "pre", "table", "blockquote", "dl", "details", "h1", "h2", "h3", "h4", "h5",
          "h6", "main", "article", "dt", "dd", "tr", "td", "th", "tbody", "thead", "summary", "figure"}
DROP = {"script", "style", "nav", "button", "svg", "img", "rustdoc-toolbar", "noscript", "template", "iframe"}
DROP_CLASS = {"boring", "sidebar", "test-arrow", "tooltip", "rightside", "out-of-band", "doc-anchor", "src", "buttons", "since",
              "nav-chapters", "rustdoc-breadcrumbs", "sub-heading", "hideme", "portability", "item-info", "rule-link", "grammar-container"}


def raw_text(node):
    """Text of a node as it stands, less what is not shown."""
    out = [node.text or ""]
    for child in node:
        if isinstance(child.tag, str) and child.tag not in DROP and not (set((child.get("class") or "").split()) & DROP_CLASS):
            out.append("\n" if child.tag == "br" else raw_text(child))
        out.append(child.tail or "")
    return "".join(out)


def inline(node):
    """Text of a node on one line, code spans in backticks."""
    out = [node.text or ""]
    for child in node:
        if isinstance(child.tag, str) and child.tag not in DROP and not (set((child.get("class") or "").split()) & DROP_CLASS):
            if child.tag == "code":
                out.append("`" + raw_text(child) + "`")
            elif child.tag in ("em", "i"):
                out.append("*" + inline(child).strip() + "*")
            elif child.tag == "br":
                out.append(" ")
            elif child.tag == "wbr":
                pass
            else:
                out.append(inline(child))
        out.append(child.tail or "")
    return squeeze("".join(out))


def squeeze(text):
    return re.sub(r"\s+", " ", plain(text))


def plain(text):
    """Typographic characters that cost tokens become their ASCII forms."""
    table = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0xA0: " ", 0x2011: "-", 0x200B: "", 0x2026: "...", 0xA7: ""}
    return text.translate(table)


def is_block(node):
    return isinstance(node.tag, str) and (node.tag in BLOCKS)


def walk(node, out, depth=0):
    """Appends the Markdown blocks of a node."""
    tag = node.tag if isinstance(node.tag, str) else "!"
    classes = set((node.get("class") or "").split()) if tag != "!" else set()
    if tag == "!" or tag in DROP or classes & DROP_CLASS:
        return
    if node.get("id") in ("trait-implementations", "synthetic-implementations", "blanket-implementations",
                          "trait-implementations-list", "synthetic-implementations-list", "blanket-implementations-list"):
        return
    if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
        if "code-header" in classes:
            out.append("```rust\n" + plain(raw_text(node)).strip() + "\n```")
            return
        title = inline(node).strip().rstrip("#").strip()
        if title:
            out.append("#" * int(tag[1]) + " " + title)
        return
    if tag == "pre":
        code = plain(raw_text(node)).rstrip()
        code = "\n".join(line.rstrip() for line in code.strip("\n").split("\n"))
        if not code.strip():
            return
        kinds = " ".join(classes) + " " + " ".join((c.get("class") or "") for c in node.findall("code"))
        language = "rust" if "rust" in kinds else "toml" if "toml" in kinds else "console" if "console" in kinds else ""
        out.append("```" + language + "\n" + code + "\n```")
        return
    if tag in ("ul", "ol"):
        lines = []
        for n, item in enumerate(node.findall("li")):
            mark = f"{n + 1}." if tag == "ol" else "-"
            if any(is_block(c) for c in item.iter() if c is not item):
                inner = []
                walk_children(item, inner, depth + 1)
                text = "\n".join(inner).replace("\n", "\n  ")
            else:
                text = inline(item).strip()
            if text.strip():
                lines.append(f"{mark} {text}")
        if lines:
            out.append("\n".join(lines))
        return
    if tag == "table":
        rows = []
        for row in node.iter("tr"):
            cells = [inline(c).strip() for c in row if isinstance(c.tag, str)]
            rows.append("| " + " | ".join(cells) + " |")
        if rows:
            out.append("\n".join(rows))
        return
    if tag in ("p", "summary", "dt", "dd") and not any(is_block(c) for c in node):
        text = inline(node).strip()
        if text:
            out.append(text)
        return
    walk_children(node, out, depth)


def walk_children(node, out, depth):
    loose = [node.text or ""]

    def flush():
        text = squeeze("".join(loose)).strip()
        if text:
            out.append(text)
        loose.clear()

    for child in node:
        if is_block(child):
            flush()
            walk(child, out, depth)
        elif isinstance(child.tag, str) and child.tag not in DROP and not (set((child.get("class") or "").split()) & DROP_CLASS):
            loose.append("`" + raw_text(child) + "`" if child.tag == "code" else inline(child))
        loose.append(child.tail or "")
    flush()


def first_prose(blocks, limit=420):
    """The first paragraphs (no code, no lists) of a run of blocks, at most `limit` characters, whole sentences."""
    text = ""
    for block in blocks:
        if block.startswith(("```", "#", "-", "|", "1.")):
            break
        if len(text) + len(block) > limit and text:
            break
        text = (text + " " + block).strip()
    if len(text) > limit:
        cut = [m.end() for m in re.finditer(r"[.!?](?=\s|$)", text) if m.end() <= limit]
        text = text[: cut[-1]] if cut else ""
    return text.strip()


def page(args):
    root, path = args
    try:
        with open(os.path.join(root, path), encoding="utf-8") as file:
            # libxml2 takes <wbr> for an element with content.
            tree = html.fromstring(file.read().replace("<wbr>", ""))
    except (OSError, ValueError, AssertionError):
        return None
    if tree is None:
        return None
    source = path.split("/")[0]
    main = tree.xpath('//*[@id="main-content"]') if source == "std" else tree.xpath("//main")
    if not main:
        return None
    out = []
    walk(main[0], out)
    items = []
    if source == "std":
        items = std_items(main[0], path)
        out = [b for b in out if not re.match(r"^(Source|1\.\d+\.\d+( · )?|impl<.*)$", b)]
    text = "\n\n".join(out)
    # Redirect stubs and pages of links say nothing.
    if len(text) < 200 or "http-equiv" in text or "Redirecting to" in text[:200] or "This is a redirect" in text[:200]:
        return None
    sections = []
    for n, block in enumerate(out):
        if block.startswith("#"):
            body = first_prose(out[n + 1 : n + 5])
            if body:
                sections.append([block.lstrip("#").strip(), body])
    title = next((b.lstrip("#").strip() for b in out if b.startswith("#")), path)
    return {"source": source, "path": path, "title": title, "text": text, "sections": sections, "items": items}


def std_items(main, path):
    """[name, kind, first sentences] of the page's own item and of its methods."""
    name = os.path.basename(path)[: -len(".html")]
    kind, _, short = name.partition(".")
    items = []
    doc = main.xpath('./details[contains(@class,"top-doc")]/div[@class="docblock"]')
    module = os.path.dirname(path).replace("/", "::")
    if doc and short:
        body = []
        walk(doc[0], body)
        items.append([short, kind, first_prose(body), module])
    elif doc:
        body = []
        walk(doc[0], body)
        items.append([module, "module", first_prose(body), module])
    for section in main.xpath('//details[contains(@class,"method-toggle")]'):
        ident = section.xpath('./summary/section/@id')
        docs = section.xpath('./div[@class="docblock"]')
        if ident and docs and ident[0].startswith(("method.", "tymethod.")) and short:
            body = []
            walk(docs[0], body)
            prose = first_prose(body, 300)
            if prose:
                items.append([f"{short}::{ident[0].split('.')[1]}", "method", prose, module])
    return [i for i in items if i[2]]


def main():
    destination = sys.argv[1]
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
    root = os.path.join(sysroot, "share/doc/rust/html")
    paths = []
    for source in BOOKS + ["std"]:
        for folder, _, files in os.walk(os.path.join(root, source)):
            for file in files:
                path = os.path.relpath(os.path.join(folder, file), root)
                if path.endswith(".html") and not SKIP.search(path):
                    paths.append((root, path))
    paths.sort()
    count, size, seen = {}, {}, set()
    with multiprocessing.Pool(2) as pool, open(destination, "w", encoding="utf-8") as out:
        for record in pool.imap(page, paths, chunksize=16):
            if record is None or record["text"] in seen:
                continue
            seen.add(record["text"])
            if record["source"] == "std":
                # Methods that deref and blanket implementations repeat on many pages are kept once.
                blocks = record["text"].split("\n\n")
                kept = [b for b in blocks if len(b) < 120 or b not in seen]
                seen.update(b for b in blocks if len(b) >= 120)
                record["text"] = "\n\n".join(kept)
                if len(record["text"]) < 200:
                    continue
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            count[record["source"]] = count.get(record["source"], 0) + 1
            size[record["source"]] = size.get(record["source"], 0) + len(record["text"])
    for source in count:
        print(f"{source:18} {count[source]:5} pages {size[source]:9} characters")


if __name__ == "__main__":
    main()
