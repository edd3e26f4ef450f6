#!/usr/bin/env python3
"""Verifies an audit trail by docs/audit.md alone, without any code of tableside.

usage: verify.py DIR [--key FILE.pub] [--checkpoint FILE]...
Needs python3, and openssl for --key. Says "intact: N lines" and ends with 0, or what is wrong and ends with 1.
"""
import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

SIGNED_AS = b"tableside-audit-checkpoint-1\n"
SIGNATURE = re.compile(rb',"signature":"([0-9a-f]{128})"\}\n\Z')


def fail(where, what):
    print(f"{where}: {what}")
    sys.exit(1)


def key_id(public):
    """The last 32 bytes of an Ed25519 key's DER are the key."""
    der = subprocess.run(["openssl", "pkey", "-pubin", "-in", public, "-outform", "DER"], check=True, capture_output=True)
    return hashlib.sha256(der.stdout[-32:]).hexdigest()[:16]


def is_signed(line, public):
    match = SIGNATURE.search(line)
    if not match:
        return False
    with tempfile.TemporaryDirectory() as folder:
        message, signature = pathlib.Path(folder, "message"), pathlib.Path(folder, "signature")
        message.write_bytes(SIGNED_AS + line[: match.start()])
        signature.write_bytes(bytes.fromhex(match.group(1).decode()))
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", message, "-sigfile", signature]
        return subprocess.run(command, capture_output=True).returncode == 0


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=pathlib.Path)
    arguments.add_argument("--key")
    arguments.add_argument("--checkpoint", type=pathlib.Path, action="append", default=[])
    options = arguments.parse_args()
    exported = {file.read_bytes() for file in options.checkpoint}

    seq, previous, chain, checkpoints, unsealed = 0, "0" * 64, None, 0, 0
    for number, path in enumerate(sorted(options.directory.glob("audit-*.jsonl")), 1):
        left = unsealed
        for n, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            where = f"{path.name}:{n}"
            if not line.endswith(b"\n"):
                fail(where, "torn")
            try:
                record = json.loads(line)
            except ValueError:
                fail(where, "no JSON")
            if record.get("seq") != seq or record.get("prev") != previous:
                fail(where, f"the chain is broken at record {seq}")
            if (n == 1) != (record["type"] == "segment"):
                fail(where, "a header is missing or in the wrong place")
            if n == 1:
                chain = chain or record["chain"]
                if (record["chain"], record["segment"], record["version"]) != (chain, number, 1):
                    fail(where, "another chain, segment or version")
                key = record["key"]
            if n == 2 and left and (record["type"], record.get("unsealed")) != ("start", left):
                fail(where, "the segment before has no checkpoint at its end, and no start says so")
            sealed = record["type"] == "checkpoint"
            unsealed = 0 if sealed else unsealed + 1
            if sealed and options.key:
                if not key == record["key"] == key_id(options.key) or not is_signed(line, options.key):
                    fail(where, "the signature is wrong")
                checkpoints += 1
            exported.discard(line)
            previous = hashlib.sha256(line).hexdigest()
            seq += 1
    if exported:
        fail(options.directory, "an exported checkpoint is not in the chain: truncated, or written anew")
    if options.key and not checkpoints:
        fail(options.directory, "nothing is signed")
    print(f"intact: {seq} lines, {checkpoints} signatures")


main()
