#!/usr/bin/env python3
"""Checks that every package we build on has a licence we can live with, and that what is loaded into QEMU has one
compatible with QEMU's GPL-2.0-or-later. The equivalent of `cargo deny check licenses` without another tool to build."""
import json
import re
import subprocess
import sys

ALLOWED = {
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib",
    "Unicode-3.0", "CC0-1.0", "0BSD", "Unlicense", "BSL-1.0", "MIT-0",
}
# Ours, loaded into QEMU and nothing else.
GPL_PACKAGES = re.compile(r"^hypovisor-adapter-tcg(-v\d+)?$")


def acceptable(expression, extra=frozenset()):
    """Whether an SPDX expression can be met with allowed licences: one side of OR, both sides of AND."""
    expression = expression.replace("/", " OR ")
    words = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression)

    def alternatives(at):
        value, at = conjunction(at)
        while at < len(words) and words[at] == "OR":
            other, at = conjunction(at + 1)
            value = value or other
        return value, at

    def conjunction(at):
        value, at = atom(at)
        while at < len(words) and words[at] == "AND":
            other, at = atom(at + 1)
            value = value and other
        return value, at

    def atom(at):
        if words[at] == "(":
            value, at = alternatives(at + 1)
            return value, at + 1
        return words[at] in ALLOWED or words[at] in extra, at + 1

    return alternatives(0)[0]


def main():
    output = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked"], check=True, capture_output=True, text=True
    ).stdout
    refused = []
    packages = json.loads(output)["packages"]
    for package in packages:
        extra = {"GPL-2.0-or-later"} if GPL_PACKAGES.match(package["name"]) else frozenset()
        licence = package.get("license")
        if not licence or not acceptable(licence, extra):
            refused.append(f"{package['name']} {package['version']}: {licence or 'no licence'}")
    for line in refused:
        print(f"licence not allowed: {line}", file=sys.stderr)
    print(f"licences: {len(packages)} packages checked")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
