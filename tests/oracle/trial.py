#!/usr/bin/env python3
"""Counts what the trial's tables say, person by person, without a line of Ebb.

    python3 tests/oracle/trial.py > tests/fixtures/oracle/trial.json

The tables are those of tests/data/ctn0094. Ebb replays the same rows as records, and what its clinical
functions count must be what is counted here. So this script is kept plain; these are its conventions.

Rows: nothing is corrected, or left out for being odd. People are those of `everybody`. A day is a whole number,
at most 8,000 before or after day 0; a row with another `when`, or none, is *undated*, and counts wherever no
day is needed. A row that lacks what it is there for is *unusable*: it is among the rows, and the undated ones,
and in no other count. A *duplicate* says the same of the same day as a row above it; a visit, and a `pre` or
`post`, happens once, so the same label is enough.

Doses (`treatment`): the drug is that of the arm of the first randomization: NR-NTX is extended-release
naltrexone, else BUP is buprenorphine, else Methadone. An amount from 0 to 100,000 was taken. Two such rows of a
day are one dose day and one duplicate. `span_days` are the days from the first dose day to the last, with both.

Gaps, of drugs that are taken daily: a gap of n is n days in a row without a dose, between two dose days. What
lies before the first and after the last is none. The tables have no row for a dose that was not taken, so the
days in gaps can be read in two ways, and both are counted:
  as_unknown  nobody said anything: no dose was missed, the days are unknown. This is how Ebb reads it.
  as_missed   a day without a row is a dose that was not taken.

Missed-dose rules, over the runs of missed days in each reading: a run counts in each line that it reaches. R14
(methadone): notify the team, hold the dose, and what the prescriber then considers. R15 (buprenorphine): tell
the person, tell the team, review the induction. R16 (extended-release naltrexone): the days from an injection
day (an amount above 0) to the next, which is due on day 28; what follows the last injection is not counted.

Bands (`withdrawal`, `withdrawal_pre_post`): SOWS in trial 51, COWS in 27 and 30; 0, 1, 2 or 3, or unusable.
A person's change, above 0 if worse, is the first `post` with a band less the first `pre` with one, as listed.

Attendance (`visit`): `visit` is kept, `no visit` missed, anything else unknown. A run is of missed visits that
follow one another: a kept one ends it, an unknown one is passed over. Nearly no missed visit has a day, and
rows without one stand below a person's others. So runs are counted twice: of dated rows by day (the file's order
within a day), and of all rows as listed, which is how Ebb hears of them, not how they followed in life.

Screens (`uds`) and use (`tlfb`): a row is a substance that was found, or used, on a day. `opioid_days` have
Opioid or Heroin; `opioid_or_agonist_days` also Methadone and Buprenorphine, which may be the treatment itself.

`total` adds people up: the longest of what is longest, nothing of single people's days and bands.
"""

import collections
import csv
import gzip
import json
import pathlib
import re

TABLES = pathlib.Path(__file__).parent.parent / "data" / "ctn0094"
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
OPIOIDS = {"Opioid", "Heroin"}
AGONISTS = {"Methadone", "Buprenorphine"}
RULES = {
    "methadone": {
        "R14_notify": lambda days: days >= 2,
        "R14_hold": lambda days: days >= 3,
        "R14_half_dose": lambda days: days == 3,
        "R14_40_mg_or_half": lambda days: days == 4,
        "R14_new_induction": lambda days: days >= 5,
    },
    "buprenorphine": {
        "R15_tell_person": lambda days: days >= 1,
        "R15_tell_team": lambda days: days >= 2,
        "R15_review_induction": lambda days: days > 5,
    },
    "naltrexone": {
        "R16_by_day_28": lambda days: days <= 28,
        "R16_1_or_2_days_late": lambda days: 29 <= days <= 30,
        "R16_due_3_to_6_days_late": lambda days: 31 <= days <= 34,
        "R16_overdue_7_days_late": lambda days: days >= 35,
    },
}
NEVER_ADDED = {"change", "first_day", "last_day", "post", "pre"}


def read(table):
    with gzip.open(TABLES / f"{table}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(words):
    return float(words) if NUMBER.fullmatch(words) else None


def day_of(row):
    day = number(row["when"])
    return int(day) if day is not None and day.is_integer() and abs(day) <= 8000 else None


def band_of(row):
    band = number(row["withdrawal"])
    return int(band) if band in (0, 1, 2, 3) else None


def drug_of(arm):
    if "NR-NTX" in arm:
        return "naltrexone"
    if "BUP" in arm:
        return "buprenorphine"
    return "methadone" if "Methadone" in arm else "other"


def undated(rows):
    return sum(day_of(row) is None for row in rows)


def days_of(rows):
    return [day_of(row) for row in rows if day_of(row) is not None]


def basics(rows, usable, things):
    """What is counted of every table; `things` are what usable rows say, a duplicate the same again."""
    return {
        "rows": len(rows),
        "undated": undated(rows),
        "unusable": len(rows) - len(usable),
        "duplicates": len(things) - len(set(things)),
    }


def count(things):
    return dict(collections.Counter(things))


def amount_of(row):
    amount = number(row["amount"])
    return amount if amount is not None and 0 <= amount <= 100_000 else None


def doses(rows):
    taken = [row for row in rows if amount_of(row) is not None]
    days = days_of(taken)
    return {
        **basics(rows, taken, days),
        "zero_amounts": sum(amount_of(row) == 0 for row in taken),
        "dose_days": len(set(days)),
        "first_day": min(days, default=None),
        "last_day": max(days, default=None),
        "span_days": max(days) - min(days) + 1 if days else 0,
    }


def steps(days):
    days = sorted(set(days))
    return [later - earlier for earlier, later in zip(days, days[1:])]


def gaps(rows, drug):
    days = days_of(row for row in rows if amount_of(row) is not None)
    lengths = [step - 1 for step in steps(days) if step > 1]
    return {
        "gaps": len(lengths),
        "by_length": count(str(length) if length < 5 else "5+" for length in lengths),
        "longest": max(lengths, default=0),
        "days": sum(lengths),
        "as_missed": {"days_missed": sum(lengths), "days_unknown": 0, **rules(drug, lengths)},
        "as_unknown": {"days_missed": 0, "days_unknown": sum(lengths), **rules(drug, [])},
    }


def rules(drug, runs):
    """How many runs, or intervals, of so many days each rule of a drug speaks of."""
    return {rule: sum(map(reaches, runs)) for rule, reaches in RULES.get(drug, {}).items()}


def injections(rows):
    days = days_of(row for row in rows if (amount_of(row) or 0) > 0)
    intervals = steps(days)
    return {
        "injection_days": len(set(days)),
        "intervals": len(intervals),
        "longest": max(intervals, default=0),
        **rules("naltrexone", intervals),
    }


def withdrawal(rows, instrument):
    usable = [row for row in rows if band_of(row) is not None]
    return {
        **basics(rows, usable, days_of(usable)),
        "by_band": {instrument: count(str(band_of(row)) for row in usable)},
    }


def pre_post(rows):
    usable = [row for row in rows if row["what"] in ("pre", "post") and band_of(row) is not None]
    first = {"pre": None, "post": None, **{row["what"]: band_of(row) for row in reversed(usable)}}
    both = None not in first.values()
    change = first["post"] - first["pre"] if both else None
    return {
        **basics(rows, usable, [row["what"] for row in usable]),
        **first,
        "change": change,
        "both": int(both),
        "worse": int(both and change > 0),
        "worse_by_2": int(both and change >= 2),
        "same": int(both and change == 0),
        "better": int(both and change < 0),
    }


def attendance(rows):
    usable = [row for row in rows if row["visit"]]
    kept = [row for row in usable if row["what"] == "visit"]
    missed = [row for row in usable if row["what"] == "no visit"]
    dated = [row for row in usable if day_of(row) is not None]
    return {
        **basics(rows, usable, [row["visit"] for row in usable]),
        "kept": len(kept),
        "missed": len(missed),
        "unknown": len(usable) - len(kept) - len(missed),
        "kept_no_show_ticked": sum(row["is_no_show"] == "1" for row in kept),
        "missed_no_show_ticked": sum(row["is_no_show"] == "1" for row in missed),
        "missed_undated": undated(missed),
        "runs_by_day": runs_of_missed(sorted(dated, key=day_of)),
        "runs_as_listed": runs_of_missed(usable),
    }


def runs_of_missed(rows):
    lengths = [0]
    for row in rows:
        if row["what"] == "no visit":
            lengths[-1] += 1
        elif row["what"] == "visit":
            lengths.append(0)
    return {"longest": max(lengths), "of_2_or_more": sum(length >= 2 for length in lengths)}


def substances(rows):
    """What is counted of screens and of use alike."""
    usable = [row for row in rows if row["what"]]
    pairs = [(day_of(row), row["what"]) for row in usable if day_of(row) is not None]
    days = {day for day, _ in pairs}
    return {
        **basics(rows, usable, pairs),
        "by_substance": count(row["what"] for row in usable),
        "distinct_day_substances": len(set(pairs)),
        "days": len(days),
        "last_day": max(days, default=None),
        "opioid_days": len({day for day, what in pairs if what in OPIOIDS}),
        "opioid_or_agonist_days": len({day for day, what in pairs if what in OPIOIDS | AGONISTS}),
    }


def counts_of(trial, arm, tables):
    drug, taken = drug_of(arm), tables["treatment"]
    between = {"injections": injections(taken)} if drug == "naltrexone" else {"gaps": gaps(taken, drug)}
    return {
        "about": {"trial": trial, "arm": arm, "drug": drug},
        "doses": doses(taken),
        **between,
        "withdrawal": withdrawal(tables["withdrawal"], "SOWS" if trial == "51" else "COWS"),
        "pre_post": pre_post(tables["withdrawal_pre_post"]),
        "attendance": attendance(tables["visit"]),
        "screens": substances(tables["uds"]),
        "use": substances(tables["tlfb"]),
    }


def add(total, counts):
    for name, value in counts.items():
        if isinstance(value, dict):
            add(total.setdefault(name, {}), value)
        elif isinstance(value, str):
            add(total.setdefault(name, {}), {value: 1})
        elif name == "longest":
            total[name] = max(total.get(name, 0), value)
        elif name not in NEVER_ADDED:
            total[name] = total.get(name, 0) + value


def lines(sections, indent):
    """A line for each section, so that a difference shows whose it is and of what."""
    named = sorted(sections.items())
    return ",\n".join(f'{indent}"{name}": {json.dumps(counts, sort_keys=True)}' for name, counts in named)


def main():
    trials = {row["who"]: row["project"] for row in read("everybody")}
    # Backwards, so that a person's first arm is the one that stays.
    arms = {row["who"]: row["treatment"] for row in reversed(read("randomization")) if row["treatment"]}
    rows = collections.defaultdict(lambda: collections.defaultdict(list))
    for table in ("treatment", "withdrawal", "withdrawal_pre_post", "visit", "uds", "tlfb"):
        for row in read(table):
            rows[row["who"]][table].append(row)
    total, people = {}, []
    for who in sorted(trials, key=int):
        counts = counts_of(trials[who], arms.get(who, ""), rows[who])
        add(total, counts)
        people.append(f'    "{who}": {{\n{lines(counts, " " * 6)}\n    }}')
    people = ",\n".join(people)
    print('{\n  "people": {', people, '  },\n  "total": {', lines(total, " " * 4), "  }\n}", sep="\n")


if __name__ == "__main__":
    main()
