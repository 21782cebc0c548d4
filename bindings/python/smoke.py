"""Drives the generated Python against a real server: a patient's phone and a clinic's desk.

Whatever was watched is locked before the end: a thread of Ebb that calls an observer while the
interpreter ends would end the process with an abort.

Arguments: the server's QUIC address, its TCP address, its pins, a folder for the replicas.
"""

import asyncio
import sys
import threading
import time

import ebb
from ebb import (
    CheckIn,
    ConsentCategory,
    Delivery,
    Dose,
    DoseUnit,
    EbbError,
    Moment,
    RecordKind,
    RecordQuery,
    Settings,
    Start,
    SyncError,
    Taking,
)

WAIT_SECONDS_MAX = 20


class MemoryVault(ebb.Vault):
    """A keystore of one run."""

    def __init__(self):
        self.key = None

    def load(self):
        return self.key

    def save(self, key):
        assert self.key is None, "a key is saved once"
        self.key = key


class LockedVault(ebb.Vault):
    """A keystore that throws what it may throw."""

    def load(self):
        raise ebb.CallbackError.Failed("the phone is locked")

    def save(self, key):
        raise ebb.CallbackError.Failed("the phone is locked")


class BrokenVault(LockedVault):
    """A keystore that throws what nobody declared."""

    def load(self):
        raise KeyError("undeclared")


class Listener(ebb.Observer):
    """Keeps events, for a test to wait for."""

    def __init__(self):
        self.events = []
        self.arrived = threading.Condition()

    def on_event(self, event):
        with self.arrived:
            self.events.append(event)
            self.arrived.notify_all()

    def wait_for(self, fits):
        self._wait(lambda: any(map(fits, self.events)))

    def wait_for_offline(self):
        self._wait(lambda: [e for e in self.events if e.is_STATUS_CHANGED()][-1].status.is_OFFLINE())

    def _wait(self, come):
        with self.arrived:
            assert self.arrived.wait_for(come, WAIT_SECONDS_MAX), f"only told: {self.events}"


class Thrower(ebb.Observer):
    """An observer with a defect."""

    def __init__(self):
        self.calls = 0

    def on_event(self, event):
        self.calls += 1
        raise RuntimeError("an app's own defect")


def expect(error, call):
    """Returns the error of this kind that the call throws."""
    try:
        call()
    except error as thrown:
        return thrown
    raise AssertionError(f"did not throw {error}")


def step(text):
    print(f"  ok  {text}", flush=True)


def refusals(folder):
    """Vaults that fail, and settings that cannot be."""
    for vault in (LockedVault(), BrokenVault()):
        expect(EbbError.Unlock, lambda: ebb.Ebb.open(Settings(dir=f"{folder}/refused"), vault))
    expect(TypeError, lambda: ebb.Ebb.open(Settings(dir=f"{folder}/refused"), object()))
    step("a vault that throws, declared or not, is Unlock; what is no Vault is a TypeError")
    server = ebb.Server(quic="localhost:1", tcp="localhost:1", pins="nonsense")
    settings = Settings(dir=f"{folder}/refused", server=server)
    refused = expect(EbbError.FixInput, lambda: ebb.Ebb.open(settings, MemoryVault()))
    assert refused.field == "pins", refused
    offline = ebb.Ebb.open(Settings(dir=f"{folder}/offline"), MemoryVault())
    offline.log_check_in(CheckIn(mood=5))
    expect(SyncError.Closed, lambda: asyncio.run(offline.sync()))
    step("without a server it logs, and sync is Closed")


def logging(phone, listener):
    """Logs both kinds, and what must be refused; returns the ids of dose and check-in."""
    own = phone.spaces()[0]
    dose = phone.log_dose(
        Dose(drug="buprenorphine", amount=16.0, unit=DoseUnit.MG, taking=Taking.TAKEN()),
        occurred=Moment(millis=1_700_000_000_000, offset_minutes=-300),
    )
    check_in = phone.log_check_in(CheckIn(craving=7, sleep_hours=6.5), note="a hard night: größer")
    listener.wait_for(lambda event: event.is_RECORDS_CHANGED() and event.records == [check_in])
    assert all(event.space == own for event in listener.events if event.is_RECORDS_CHANGED())
    step("two kinds logged, the observer told")

    refused = expect(EbbError.FixInput, lambda: phone.log_check_in(CheckIn(craving=11)))
    assert (refused.field, refused.allowed) == ("craving", "0 to 10"), refused
    refused = expect(EbbError.FixInput, lambda: phone.delivery("no id"))
    assert refused.field == "record", refused
    refused = expect(EbbError.FixInput, lambda: phone.grant("no card", []))
    assert "ebb-card-1-" in refused.allowed, refused
    step("FixInput names the field and what is allowed")

    newest, oldest = phone.records(RecordQuery())
    assert (newest.id, oldest.id) == (check_in, dose)
    assert newest.body.is_CHECK_IN() and newest.body.check_in == CheckIn(craving=7, sleep_hours=6.5)
    assert newest.note == "a hard night: größer" and newest.category == ConsentCategory.WELLBEING
    assert oldest.body.dose.drug == "buprenorphine" and oldest.body.dose.taking.is_TAKEN()
    assert oldest.occurred == Moment(millis=1_700_000_000_000, offset_minutes=-300)
    only = phone.records(RecordQuery(kind=RecordKind.DOSE()))
    assert [record.id for record in only] == [dose]
    step("listed as logged, and by kind")
    return dose, check_in


async def cancelled(phone):
    """A sync that nobody waits for any more."""
    task = asyncio.create_task(phone.sync())
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    raise AssertionError("was not cancelled")


def syncing(phone, listener, dose, check_in):
    """From the phone to the server."""
    assert phone.delivery(dose) == Delivery.ON_PHONE
    asyncio.run(cancelled(phone))
    asyncio.run(phone.sync(budget_ms=WAIT_SECONDS_MAX * 1000))
    assert phone.delivery(dose) == phone.delivery(check_in) == Delivery.ON_SERVER
    listener.wait_for(lambda event: event.is_DELIVERY_CHANGED())
    listener.wait_for(lambda event: event.is_STATUS_CHANGED() and event.status.is_IN_SYNC())
    step("synced after a sync that was cancelled: both are on the server")


def sharing(phone, desk, check_in):
    """To a clinic, which may read check-ins but not doses."""
    told = Listener()
    desk.watch(told)
    phone.grant(desk.card(), [ConsentCategory.WELLBEING])
    asyncio.run(phone.sync())
    patient = desk.follow(phone.ticket())
    asyncio.run(desk.sync())
    seen = desk.records(RecordQuery(space=patient))
    assert [record.id for record in seen] == [check_in], seen
    assert seen == phone.records(RecordQuery(kind=RecordKind.CHECK_IN()))
    step("the clinic reads what was granted, and nothing else")

    desk.stay_in_sync()
    told.wait_for(lambda event: event.is_STATUS_CHANGED() and event.status.is_IN_SYNC())
    later = phone.log_check_in(CheckIn(mood=8))
    asyncio.run(phone.sync())
    told.wait_for(lambda event: event.is_RECORDS_CHANGED() and later in event.records)
    step("the clinic, staying in sync, was told of a new one")

    desk.go_offline()
    told.wait_for_offline()
    desk.lock()
    step("the clinic went offline and locked")


def locking(phone, settings, vault):
    """Locked, and opened again."""
    expect(EbbError.InUse, lambda: ebb.Ebb.open(settings, vault))
    phone.lock()
    expect(EbbError.Unlock, lambda: phone.log_check_in(CheckIn(mood=1)))
    expect(EbbError.Unlock, lambda: ebb.Ebb.open(settings, MemoryVault()))
    again = ebb.Ebb.open(settings, vault)
    assert len(again.records(RecordQuery())) == 3
    again.lock()
    step("InUse while open; locked it is Unlock; opened again, everything is there")


def main(quic, tcp, pins, folder):
    began = time.monotonic()
    refusals(folder)
    server = ebb.Server(quic=quic, tcp=tcp, pins=pins)
    vault = MemoryVault()
    settings = Settings(dir=f"{folder}/phone", server=server)
    phone = ebb.Ebb.open(settings, vault)
    thrower, listener = Thrower(), Listener()
    phone.watch(thrower)
    phone.watch(listener)
    dose, check_in = logging(phone, listener)
    syncing(phone, listener, dose, check_in)
    desk_settings = Settings(dir=f"{folder}/desk", server=server, start=Start.CLINIC())
    desk = ebb.Ebb.open(desk_settings, MemoryVault())
    sharing(phone, desk, check_in)
    assert thrower.calls > 3
    step("an observer that throws disturbed nobody")
    listener.wait_for_offline()
    locking(phone, settings, vault)
    print(f"smoke: all of it in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
