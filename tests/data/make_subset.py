#!/usr/bin/env python3
"""Cuts the trial subset out of the full CTN-0094 tables. Run once; its output is committed.

    python3 tests/data/make_subset.py SOURCE_DIR

SOURCE_DIR holds the tables of the R package public.ctn0094data as CSV files. Rows are copied as they
are and stay in their order; only rows of people who were not chosen are left out. The choice is a fixed
function of the tables: no random numbers, and compressed files carry no time stamp.
"""

import collections
import csv
import gzip
import hashlib
import io
import pathlib
import sys

TABLES = ["treatment", "withdrawal", "withdrawal_pre_post", "uds", "tlfb", "visit", "pain"]
CONTEXT = ["everybody", "randomization"]
PER_TRIAL = 20
ROWS_MIN, ROWS_MAX = 60, 330


def read(source, table):
    with open(source / f"{table}.csv", newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def choose(tables):
    """Twenty people of each trial: first those in whose rows the dirt is, then any others."""
    dirt, rows, kinds = collections.Counter(), collections.Counter(), collections.defaultdict(set)
    for table in TABLES:
        header, lines = tables[table]
        place = {name: at for at, name in enumerate(header)}
        seen, doses = set(), {}
        for line in lines:
            who, when = line[0], line[place["when"]]
            rows[who] += 1
            kinds[who].add(table)
            thing = (who, when) if table == "treatment" else (who, line[1], when)
            if table == "visit":
                thing = (who, line[1])
            if thing in seen:
                dirt[who] += 20  # the same thing twice
            seen.add(thing)
            if table in ("withdrawal", "withdrawal_pre_post") and not line[place["withdrawal"]]:
                dirt[who] += 40  # a band without a value
            if table == "pain" and line[1] == "Missing":
                dirt[who] += 10
            if table == "treatment":
                if when and who in doses and float(when) - doses[who] > 3:
                    dirt[who] += 1  # a gap
                doses[who] = float(when)
    chosen = set()
    header, everybody = tables["everybody"]
    for trial in ("27", "30", "51"):
        fit = [
            who
            for who, project in everybody
            if project == trial and ROWS_MIN <= rows[who] <= ROWS_MAX and len(kinds[who]) >= 5
        ]
        fit.sort(key=lambda who: (who != "2", hashlib.sha256(who.encode()).hexdigest()))
        dirty = sorted(fit, key=lambda who: (who != "2", -dirt[who]))[: PER_TRIAL // 2]
        others = [who for who in fit if who not in dirty][: PER_TRIAL - len(dirty)]
        chosen.update(dirty + others)
    return chosen


def main():
    source = pathlib.Path(sys.argv[1])
    target = pathlib.Path(__file__).parent / "ctn0094"
    target.mkdir(exist_ok=True)
    tables = {table: read(source, table) for table in TABLES + CONTEXT}
    chosen = choose(tables)
    for table, (header, rows) in tables.items():
        kept = [row for row in rows if row[0] in chosen]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([header, *kept])
        packed = gzip.compress(text.getvalue().encode(), 9, mtime=0)
        (target / f"{table}.csv.gz").write_bytes(packed)
        print(f"{table}: {len(kept)} of {len(rows)} rows, {len(packed)} bytes")
    print(f"{len(chosen)} people")


if __name__ == "__main__":
    main()
