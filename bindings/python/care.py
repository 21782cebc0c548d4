"""Drives a patient's day and a clinic's list through the generated Python, against a real server.

The bindings read a plan and write none: the test that runs this is the clinic that does. It is told the
patient's ticket in a line of our output, and says in a line of our input that the plan is on the server.

Arguments: the server's QUIC address, its TCP address, its pins, a folder for the replicas, the card of the
clinic that writes the plan.
"""

import asyncio
import sys
import time

import ebb
from ebb import (
    AlertOwner,
    AlertSeverity,
    AlertState,
    AnsweredBy,
    Answers,
    Certainty,
    ConsentCategory,
    Dose,
    DueState,
    EbbError,
    Moment,
    Notice,
    RecordKind,
    SafetyLevel,
    SessionMode,
    SessionOutcome,
    Settings,
    Start,
    Taking,
)
from smoke import WAIT_SECONDS_MAX, Listener, MemoryVault, expect, step

SHARED = [
    ConsentCategory.WELLBEING,
    ConsentCategory.SYMPTOMS,
    ConsentCategory.MEDICATION,
    ConsentCategory.PLAN,
    ConsentCategory.OBSERVATIONS,
]


def sync(device):
    asyncio.run(device.sync(budget_ms=WAIT_SECONDS_MAX * 1000))


def answers(instrument, given, draft=False):
    return Answers(instrument=instrument.id, version=instrument.version, answers=given, draft=draft)


def numbered(*values):
    """Answers to the items 1, 2, 3 and so on."""
    return {str(item): value for item, value in enumerate(values, 1)}


def forms(phone):
    """What a form needs of an instrument."""
    listed = {one.id: one for one in phone.instruments()}
    assert {"phq9", "gad7", "sows16", "cows", "bam"} <= set(listed)
    assert "ciwa_b" not in listed, "its licence is not confirmed, and no programme turned it on"
    assert phone.instrument("ciwa_b").id == "ciwa_b", "what was answered once can be shown"
    assert phone.instrument("nonsense") is None
    assert phone.instrument("phq9", version="0") is None

    phq9 = phone.instrument("phq9", language="es-US")
    assert phq9 == phone.instrument("phq9", version=phq9.version, language="es")
    assert phq9.title == "Cuestionario sobre la salud del paciente (PHQ-9)"
    assert (phq9.window_days, phq9.window) == (14, "las últimas 2 semanas")
    assert phq9.languages == ["en", "es"] and phq9.instructions.startswith("Durante")
    assert [item.id for item in phq9.items] == [str(item) for item in range(1, 11)]
    assert [choice.value for choice in phq9.items[0].allowed.choices] == [0, 1, 2, 3]
    assert [item.required for item in phq9.items] == [True] * 9 + [False]
    assert listed["phq9"].title == "Patient Health Questionnaire (PHQ-9)"
    assert listed["cows"].answered_by == AnsweredBy.OBSERVER
    craving = phone.instrument("craving", language="es").items[0].allowed
    assert craving.is_NUMBER() and (craving.min, craving.max) == (0, 10)
    asked_if = {item.id: item.asked_if for item in listed["bam"].items}["5"]
    assert (asked_if.item, asked_if.at_least) == ("4", 1)
    step("instruments for a form, in the person's language where they are in it")


def scores(phone, phq9):
    """What answers come to before anybody logs them."""
    none = phone.score(answers(phq9, {}))
    assert none.missing == [str(item) for item in range(1, 10)] and none.scales[0].value is None
    part = phone.score(answers(phq9, numbered(1, 1, 1, 1, 1, 1, 1, 1)))
    assert (part.missing, part.next_items, part.safety) == (["9"], ["9", "10"], [])
    assert (part.scales[0].value, part.scales[0].band) == (None, None), "a gap is never scored"

    whole = phone.score(answers(phq9, numbered(1, 1, 1, 1, 1, 1, 1, 1, 2)), language="es")
    assert whole.missing == [] and whole.next_items == ["10"]
    (total,) = whole.scales
    assert (total.scale, total.value, total.min, total.max) == ("total", 10, 0, 27)
    assert (total.band.code, total.band.severity) == ("moderate", 2) and total.band.label == "Moderada"
    assert "Kroenke" in total.band.source, total.band.source
    (hit,) = whole.safety
    assert (hit.item, hit.value, hit.level) == ("9", 2, SafetyLevel.EMERGENCY)

    bam = phone.instrument("bam")
    open_items = lambda given: phone.score(answers(bam, given)).next_items
    assert "5" not in open_items({}) and "5" in open_items({"4": 2}), "asked once it follows"

    refused = expect(EbbError.FixInput, lambda: phone.score(answers(phq9, {"1": 4})))
    assert (refused.field, refused.allowed) == ("answers.1", "0, 1, 2, 3"), refused
    other = Answers(instrument="phq9", version="0", answers={"1": 1})
    refused = expect(EbbError.FixInput, lambda: phone.score(other))
    assert (refused.field, refused.allowed) == ("version", phq9.version), refused
    other.instrument = "nonsense"
    refused = expect(EbbError.FixInput, lambda: phone.score(other))
    assert refused.field == "instrument", refused
    step("scores with band and source, what is missing, what is asked next, what calls for somebody")


def alert_of(device, rule, space=None):
    """The only alert of a rule."""
    (alert,) = [alert for alert in device.alerts(space=space) if alert.rule == rule]
    return alert


def draft_raises_an_alert(phone, phq9, listener):
    """A draft is kept, and its safety item heard at once, without a network; returns record and alert."""
    own = phone.spaces()[0]
    assert phone.alerts() == []
    begun = answers(phq9, {"9": 1}, draft=True)
    record = phone.log_answers(begun, note="too tired for the rest")
    listener.wait_for(lambda event: event.is_ALERTS_CHANGED() and event.space == own)
    (alert,) = phone.alerts()
    assert any(event.is_ALERTS_CHANGED() and event.alerts == [alert.id] for event in listener.events)
    assert (alert.rule, alert.subject, alert.severity) == ("R1", "phq9", AlertSeverity.URGENT)
    assert (alert.owner, alert.state) == (AlertOwner.CARE_TEAM, AlertState.OPEN)
    assert (alert.certainty, alert.holds) == (Certainty.KNOWN, False)
    assert alert.text == "phq9: item 9 answered 1." and alert.inputs == [record]
    told = phone.record(record)
    assert alert.observed_ms == alert.from_ms == alert.until_ms == told.occurred.millis
    assert alert.raised_ms - alert.observed_ms == alert.late_ms and alert.late_ms < WAIT_SECONDS_MAX * 1000
    assert told.kind == RecordKind.ANSWERS() and told.body.answers == begun
    step("a draft raised an alert, and the observer was told")

    whole = answers(phq9, numbered(1, 1, 1, 1, 1, 1, 1, 1, 2))
    phone.edit_answers(record, whole)
    told = phone.record(record)
    assert told.body.answers == whole and told.note == "too tired for the rest"
    worse = alert_of(phone, "R1")
    assert (worse.id, worse.raised_ms, worse.severity) == (alert.id, alert.raised_ms, AlertSeverity.EMERGENCY)
    phone.edit_answers(record, whole, note="done")
    assert phone.record(record).note == "done"
    cows = phone.instrument("cows")
    refused = expect(EbbError.FixInput, lambda: phone.log_answers(answers(cows, {"1": 0})))
    assert refused.field == "instrument", refused
    step("the draft was made whole and its alert more pressing; an observer's scale is refused")
    return record, worse


def plan_arrives(phone, card):
    """Has the clinic that runs this test write the plan, and acknowledge the alert."""
    assert (phone.today().items, phone.notifications()) == ([], [])
    phone.grant(card, SHARED)
    sync(phone)
    print(f"ticket {phone.ticket()}", flush=True)
    assert sys.stdin.readline() == "the plan is there\n", "the clinic gave up"
    sync(phone)
    assert alert_of(phone, "R1").state == AlertState.ACKNOWLEDGED
    step("a plan arrived, and word that somebody has the alert")


def dose_of(what):
    """The dose that was due, taken."""
    return Dose(
        drug=what.drug, amount=what.amount, unit=what.unit, taking=Taking.TAKEN(), planned=what.planned
    )


def due(device, fits, space=None):
    return [item for item in device.today(space=space).items if fits(item)]


def day(phone):
    """What is due, answered; and what the phone reminds of."""
    assert phone.today().not_understood == []
    doses = lambda: due(phone, lambda item: item.what.is_DOSE() and item.state != DueState.UPCOMING)
    (dose,) = doses()
    what = dose.what
    assert (what.drug, what.amount, what.taken, dose.answer) == ("buprenorphine", 16.0, None, None)
    assert dose.state in (DueState.DUE, DueState.OVERDUE) and dose.record == what.planned.regimen
    assert (dose.due.millis, dose.all_day) == (what.planned.due_ms, False)
    assert dose.due.offset_minutes == 345, "eight o'clock in Kathmandu"
    assert (dose.due.millis // 60_000 + dose.due.offset_minutes) % (24 * 60) == 8 * 60
    taken = phone.log_dose(dose_of(what))
    (done,) = [item for item in doses() if item.due == dose.due]
    assert (done.state, done.answer, done.what.taken) == (DueState.DONE, taken, True)

    gad7 = phone.instrument("gad7")
    asked = lambda fits: due(phone, lambda item: item.what.is_INSTRUMENT() and fits(item))
    assert asked(lambda item: item.state != DueState.DONE and item.what.id == "gad7")
    begun = phone.log_answers(answers(gad7, {"1": 2}, draft=True))
    (item,) = asked(lambda item: item.what.draft == begun)
    assert (item.state != DueState.DONE, item.what.answered_by) == (True, AnsweredBy.PERSON)
    phone.edit_answers(begun, answers(gad7, numbered(*[2] * 7)))
    (item,) = asked(lambda item: item.answer == begun)
    assert (item.state, item.what.draft) == (DueState.DONE, None)

    sessions = due(phone, lambda item: item.what.is_SESSION())
    later = [item.what for item in sessions if item.state == DueState.UPCOMING]
    assert later and all(session.session.is_GROUP() for session in later)
    assert later[0].title == "evening group" and later[0].mode == SessionMode.VIDEO
    assert later[0].outcome == SessionOutcome.UNKNOWN
    (word,) = due(phone, lambda item: item.what.is_SIGN_OFF())
    assert (word.what.number, word.what.agreed) == (1, None)
    step("today: a dose taken, a questionnaire begun and done, a session to come, a plan to agree to")

    reminders = phone.notifications()
    assert {one.text for one in reminders} == {"Time for your check", "Something is coming up"}
    assert {one.notice for one in reminders} == {Notice.CHECK, Notice.SOON}
    assert len({one.id for one in reminders}) == len(reminders)
    assert reminders == phone.notifications(hours=48, language="en")
    assert phone.notifications(hours=0) == []
    spanish = {one.text for one in phone.notifications(language="es")}
    assert spanish == {"Es hora de tu registro", "Tienes algo pronto"}
    assert [line.name for line in phone.crisis_lines()][:2] == ["Riverside", "988 Suicide & Crisis Lifeline"]
    step("reminders that tell nothing, and whom to call")


def course(phone, record):
    """A week in sentences and numbers."""
    when = phone.record(record).occurred
    week = phone.summary(when)
    assert week.first_day < week.last_day and len(week.last_day) == len("2026-03-08")
    (phq9,) = [one for one in week.measures if one.measure == "phq9"]
    assert phq9.days == [None] * 6 + [10.0], "gaps, not zeroes"
    assert (phq9.title, phq9.readings, phq9.median, phq9.median_before) == ("Low mood (PHQ-9)", 1, 10.0, None)
    assert week.sentences[0] == f"{week.first_day} to {week.last_day}, 7 days."
    assert "Low mood (PHQ-9): 10 (1 reading)." in week.sentences
    month = phone.summary(when, days=30, language="es")
    (phq9,) = [one for one in month.measures if one.measure == "phq9"]
    assert len(phq9.days) == 30 and phq9.title == "Ánimo bajo (PHQ-9)"
    assert month.sentences[0] == f"Del {month.first_day} al {month.last_day}, 30 días."
    tomorrow = Moment(millis=when.millis, offset_minutes=when.offset_minutes + 24 * 60)
    (phq9,) = [one for one in phone.summary(tomorrow).measures if one.measure == "phq9"]
    assert phq9.days == [None] * 5 + [10.0, None], "the last day is that of the given clock on the wall"
    assert phone.summary(when, days=0).measures == []
    assert len(phone.summary(when, days=2**32 - 1).measures[0].days) == 36_600, "a hundred years at most"
    end_of_time = Moment(millis=2**63 - 1, offset_minutes=2**15 - 1)
    assert phone.summary(end_of_time, days=2**32 - 1).measures == []
    step("a week and a month in sentences and numbers, gaps as gaps")


def clinics_list(phone, desk, alert):
    """What a clinic's desk lists of a patient."""
    told = Listener()
    desk.watch(told)
    expect(EbbError.FixInput, desk.today)
    expect(EbbError.FixInput, desk.alerts)
    phone.grant(desk.card(), SHARED)
    sync(phone)
    patient = desk.follow(phone.ticket())
    sync(desk)
    assert desk.spaces() == [patient]
    seen = alert_of(desk, "R1", space=patient)
    told.wait_for(lambda event: event.is_ALERTS_CHANGED() and alert.id in event.alerts)
    assert (seen.id, seen.severity, seen.inputs) == (alert.id, alert.severity, alert.inputs)
    assert (seen.state, seen.observed_ms) == (AlertState.ACKNOWLEDGED, alert.observed_ms)
    assert seen.raised_ms > alert.raised_ms and seen.late_ms == seen.raised_ms - seen.observed_ms
    answered = desk.record(seen.inputs[0], space=patient)
    score = desk.score(answered.body.answers, space=patient)
    assert score.scales[0].value == 10 and score.safety[0].value == 2
    assert desk.today(space=patient) == phone.today()
    assert desk.summary(answered.occurred, space=patient) == phone.summary(answered.occurred)
    assert desk.crisis_lines()[0].phone == "988", "a desk has no programme"

    desk.stay_in_sync()
    told.wait_for(lambda event: event.is_STATUS_CHANGED() and event.status.is_IN_SYNC())
    phq2 = phone.instrument("phq2_i9")
    items = [item.id for item in phq2.items]
    worse = phone.log_answers(answers(phq2, {items[-1]: 2}, draft=True))
    sync(phone)
    told.wait_for(lambda event: event.is_RECORDS_CHANGED() and worse in event.records)
    (fresh,) = [one for one in desk.alerts(space=patient) if one.inputs == [worse]]
    told.wait_for(lambda event: event.is_ALERTS_CHANGED() and fresh.id in event.alerts)
    assert (fresh.severity, fresh.state) == (AlertSeverity.EMERGENCY, AlertState.OPEN)
    desk.go_offline()
    told.wait_for_offline()
    desk.lock()
    step("the clinic lists what the phone found, says how late, and is told of more")


def main(quic, tcp, pins, folder, card):
    began = time.monotonic()
    server = ebb.Server(quic=quic, tcp=tcp, pins=pins)
    phone = ebb.Ebb.open(Settings(dir=f"{folder}/phone", server=server), MemoryVault())
    listener = Listener()
    phone.watch(listener)
    forms(phone)
    phq9 = phone.instrument("phq9")
    scores(phone, phq9)
    record, alert = draft_raises_an_alert(phone, phq9, listener)
    plan_arrives(phone, card)
    day(phone)
    course(phone, record)
    desk = ebb.Ebb.open(Settings(dir=f"{folder}/desk", server=server, start=Start.CLINIC()), MemoryVault())
    clinics_list(phone, desk, alert)
    listener.wait_for_offline()
    phone.lock()
    expect(EbbError.Unlock, phone.today)
    assert [line.phone for line in phone.crisis_lines()] == ["988", "1-800-662-4357", "911"]
    step("locked, nothing is told but whom to call")
    print(f"care: all of it in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
