#!/usr/bin/env python3
"""Reads an export as a program and as a person with a spreadsheet would: prints the number of rows and the outcomes."""
import collections
import csv
import datetime
import sys

with open(sys.argv[1], encoding="utf-8-sig", newline="") as file:
    rows = list(csv.DictReader(file, strict=True))
signals = [row for row in rows if row["type"] == "signal"]
for row in signals:
    datetime.datetime.strptime(row["received_utc"], "%Y-%m-%d %H:%M:%S.%f")
    assert float(row["edge_ms"]) >= 0 and len(row["message_sha256"]) == 64, row
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values()), row
# Where semicolons separate, nothing that players choose is a formula either.
with open(sys.argv[1], encoding="utf-8-sig", newline="") as file:
    for row in csv.reader(file, delimiter=";"):
        assert all(not cell.lstrip('"').startswith(("=", "+", "-", "@")) for cell in row[1:]), row
print(len(rows), *sorted(f"{name}={n}" for name, n in collections.Counter(row["outcome"] for row in signals).items()))
