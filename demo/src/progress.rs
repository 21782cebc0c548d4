//! What is shown while the demo works: bars on a terminal, plain lines elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{trial::Person, ward::Lived};

/// What is shown while the demo works.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    /// People whose days are told and everywhere.
    pub(crate) people: ProgressBar,
    /// Records logged.
    pub(crate) records: ProgressBar,
    /// Syncs that came through.
    pub(crate) syncs: ProgressBar,
    /// Connections cut and phones killed.
    pub(crate) breaks: ProgressBar,
}

impl Progress {
    /// Begins, with bars if somebody can watch them.
    pub(crate) fn begin(people: usize, records: usize, headless: bool) -> Self {
        let bars = (!headless && io::stderr().is_terminal()).then(MultiProgress::new);
        let bar = |total: Option<usize>, name: &'static str| {
            let bar = match total {
                Some(total) => ProgressBar::new(total as u64),
                None => ProgressBar::no_length(),
            };
            let form = match total {
                Some(_) => "{prefix:>22} {bar:40} {pos}/{len}",
                None => "{prefix:>22} {pos}",
            };
            bar.set_style(
                ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_prefix(name);
            match &bars {
                Some(bars) => {
                    let bar = bars.add(bar);
                    bar.enable_steady_tick(Duration::from_millis(200));
                    bar
                }
                None => {
                    bar.set_draw_target(ProgressDrawTarget::hidden());
                    bar
                }
            }
        };
        Self {
            people: bar(Some(people), "people done"),
            records: bar(Some(records), "records logged"),
            syncs: bar(None, "syncs"),
            breaks: bar(None, "cuts and kills"),
            bars,
        }
    }

    /// Says a line: above the bars, or on standard output.
    pub(crate) fn say(&self, line: &str) {
        match &self.bars {
            // What cannot be shown is no reason to stop.
            Some(bars) => drop(bars.println(line)),
            None => drop(writeln!(io::stdout().lock(), "{line}")),
        }
    }

    /// Says that a person's days are told, where no bar does.
    pub(crate) fn done(&self, person: &Person, lived: &Lived) {
        if self.bars.is_none() {
            let Lived { records, syncs, cuts, kills, .. } = lived;
            let (who, trial) = (&person.who, &person.background.project);
            self.say(&format!(
                "{:>3}/{} person {who} (trial {trial}): {records} records, {syncs} syncs, {cuts} cuts, {kills} kills",
                self.people.position(),
                self.people.length().unwrap_or(0),
            ));
        }
    }

    /// Takes the bars away.
    pub(crate) fn end(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
        }
    }
}
